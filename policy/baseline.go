package policy

import (
	"path"
	"slices"
	"strings"
)

// SearchPath is the PATH inside every sandbox, and where a command without a slash is looked for.
const SearchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Home is the private home directory inside every sandbox.
const Home = "/home/agent"

var (
	// BaselineRead is what `baseline: system` gives to read and to map libraries from, where the host has it; of /etc,
	// without BaselineSecrets. It gives no execution.
	BaselineRead = []string{"/bin", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/sbin", "/usr"}
	// BaselineDevices is what `baseline: system` gives of /dev, to read and write.
	BaselineDevices = []string{
		"/dev/fd", "/dev/full", "/dev/null", "/dev/ptmx", "/dev/pts", "/dev/random", "/dev/stderr", "/dev/stdin",
		"/dev/stdout", "/dev/tty", "/dev/urandom", "/dev/zero",
	}
	// PrivateDirs are made for each sandbox, to read and write, whatever the baseline.
	PrivateDirs = []string{Home, "/tmp", "/dev/shm"}
)

// Secret is a path of the host that no broader rule shows.
type Secret struct {
	Path   string // absolute; * in the last element only
	Reason string // what is in it
}

// BaselineSecrets is what the baseline leaves out, and what an allow rule for a directory above leaves out as well: a
// secret is visible only when a rule names it, or something below it. Most of these files can be read by host root
// only; leaving them out holds even where a host's modes are wrong.
var BaselineSecrets = []Secret{
	{"/etc/.pwd.lock", "locks the password files"},
	{"/etc/NetworkManager", "passwords of networks and VPNs"},
	{"/etc/apt/auth.conf", "passwords of package repositories"},
	{"/etc/apt/auth.conf.d", "passwords of package repositories"},
	{"/etc/audit", "what the host watches for"},
	{"/etc/bind", "keys of name server updates"},
	{"/etc/boto.cfg", "keys of cloud accounts"},
	{"/etc/ceph", "keys of the storage cluster"},
	{"/etc/chatscripts", "passwords of dial-up links"},
	{"/etc/cifs*", "passwords of network mounts"},
	{"/etc/cloud", "keys and passwords from the host's first start"},
	{"/etc/cni", "keys of container networks"},
	{"/etc/containers/auth.json", "passwords of container registries"},
	{"/etc/crypttab", "where keys of encrypted disks lie"},
	{"/etc/cups/printers.conf*", "passwords of printers"},
	{"/etc/davfs2", "passwords of network mounts"},
	{"/etc/docker", "keys and passwords of the container engine"},
	{"/etc/dovecot/private", "private keys of the mail server"},
	{"/etc/environment", "often holds API keys and proxy passwords"},
	{"/etc/exim4/passwd.client", "passwords of mail relays"},
	{"/etc/fstab", "may hold passwords of network mounts"},
	{"/etc/grafana", "passwords and keys of the dashboard"},
	{"/etc/group-", "a backup of the accounts"},
	{"/etc/gshadow*", "password hashes of groups"},
	{"/etc/ipa", "keys of the identity server"},
	{"/etc/ipsec.*", "keys of VPNs"},
	{"/etc/iscsi", "passwords of storage"},
	{"/etc/krb5.keytab", "Kerberos keys of the host"},
	{"/etc/krb5kdc", "Kerberos keys of the realm"},
	{"/etc/kubernetes", "keys of the cluster"},
	{"/etc/ldap.secret", "password of the directory"},
	{"/etc/letsencrypt", "private keys of certificates"},
	{"/etc/libnss-ldap.secret", "password of the directory"},
	{"/etc/luks*", "keys of encrypted disks"},
	{"/etc/msmtprc", "passwords of mail relays"},
	{"/etc/multipath*", "where the host's storage is"},
	{"/etc/mysql", "password of the database's administrator"},
	{"/etc/nemoclaw", "the policies of this and other sandboxes"},
	{"/etc/netplan", "passwords of networks"},
	{"/etc/nslcd.conf", "password of the directory"},
	{"/etc/openvpn", "keys of VPNs"},
	{"/etc/pam_ldap.secret", "password of the directory"},
	{"/etc/passwd-", "a backup of the accounts"},
	{"/etc/pki/tls/private", "private keys of certificates"},
	{"/etc/polkit-1", "who may administer the host"},
	{"/etc/postfix", "passwords of mail relays"},
	{"/etc/postgresql", "who may enter the database"},
	{"/etc/postgresql-common", "who may enter the database"},
	{"/etc/ppp", "passwords of dial-up links and VPNs"},
	{"/etc/pve", "keys of virtual machines"},
	{"/etc/rabbitmq", "passwords of the message broker"},
	{"/etc/rancher", "keys of the cluster"},
	{"/etc/redis", "password of the database"},
	{"/etc/samba", "passwords of shares"},
	{"/etc/security/opasswd", "old passwords"},
	{"/etc/shadow*", "password hashes"},
	{"/etc/ssh/ssh_host_*", "private keys of the host"},
	{"/etc/ssl/private", "private keys of certificates"},
	{"/etc/sssd", "passwords of directories"},
	{"/etc/strongswan*", "keys of VPNs"},
	{"/etc/sudoers", "who may become root"},
	{"/etc/sudoers.d", "who may become root"},
	{"/etc/swanctl", "keys of VPNs"},
	{"/etc/tinc", "keys of VPNs"},
	{"/etc/unbound", "keys of the resolver"},
	{"/etc/vault*", "keys of the secret store"},
	{"/etc/wireguard", "keys of VPNs"},
	{"/etc/wpa_supplicant", "passwords of networks"},
}

// SecretAt returns the secret that p, an absolute path, is or lies below.
func SecretAt(p string) (s Secret, at string, found bool) {
	for above := range ancestors(path.Clean("/" + p)) {
		for _, s := range BaselineSecrets {
			if s.Path == above {
				return s, above, true
			}
			if strings.Contains(s.Path, "*") { // few have one, and path.Match costs a hundred comparisons
				if ok, _ := path.Match(s.Path, above); ok {
					return s, above, true
				}
			}
		}
	}
	return Secret{}, "", false
}

// secretNames are names of files and directories that hold keys and passwords of people, wherever they lie; what the
// host itself has is in BaselineSecrets.
const secretNames = " .ssh .gnupg .aws .azure .kube .docker .oci .config/gcloud .config/gh .config/glab-cli .config/hub .config/op .config/rclone .config/doctl" +
	" .git-credentials .netrc _netrc .npmrc .pypirc .pgpass .my.cnf .boto .s3cfg .vault-token .password-store .terraform.d .terraformrc" +
	" .cargo/credentials .cargo/credentials.toml .m2/settings.xml .gradle/gradle.properties .composer/auth.json containers/auth.json .huggingface huggingface/token" +
	" .claude.json .claude/.credentials.json .codex/auth.json .env credentials run/secrets" +
	" id_rsa id_dsa id_ecdsa id_ed25519 id_ecdsa_sk id_ed25519_sk" +
	" .mozilla .thunderbird .librewolf .config/google-chrome .config/chromium .config/BraveSoftware .config/microsoft-edge .config/vivaldi .config/opera" +
	" snap/firefox snap/chromium .local/share/keyrings .local/share/kwalletd" +
	" .bitcoin .ethereum .electrum .bitmonero .config/solana .config/Exodus wallet.dat" +
	" .bash_history .zsh_history .histfile .python_history .node_repl_history .psql_history .mysql_history .sqlite_history .lesshst .viminfo .local/share/fish "

// ours are the places where NemoClaw itself has what it knows and by what it judges.
var ours = []string{"/run/nemoclaw", "/sys/fs/bpf/nemoclaw", "/var/lib/nemoclaw", "/var/log/nemoclaw"}

// publicKeys are where certificates lie that anybody may read, by names that keys have.
var publicKeys = []string{"/etc/ssl/certs", "/etc/pki/ca-trust", "/usr"}

// templates are what comes with a program to show what its .env is to be.
var templates = []string{".env.dist", ".env.example", ".env.sample", ".env.template"}

// Reveals says what a path of the host may reveal, "" for nothing known. A rule for it is never to be copied unseen.
func Reveals(p string) string {
	if s, _, found := SecretAt(p); found {
		return s.Reason
	}
	if underAny(p, ours) {
		return "what NemoClaw knows, and judges by"
	}
	elements := strings.Split(strings.Trim(p, "/"), "/")
	for i, e := range elements {
		if e == "" {
			continue
		}
		two, three := e, e
		if i+1 < len(elements) {
			two += "/" + elements[i+1]
		}
		if i+2 < len(elements) {
			three = two + "/" + elements[i+2]
		}
		if strings.HasPrefix(e, ".env.") && !slices.Contains(templates, e) || strings.Contains(secretNames, " "+three+" ") || strings.Contains(secretNames, " "+e+" ") || strings.Contains(secretNames, " "+two+" ") {
			return "keys, passwords or the history of a person"
		}
	}
	switch path.Base(p) {
	case "docker.sock", "containerd.sock", "podman.sock", "crio.sock":
		return "a container engine, and who commands that is root"
	}
	if underAny(p, publicKeys) || path.Base(p) == "cacert.pem" {
		return ""
	}
	switch path.Ext(p) {
	case ".key", ".pem", ".p12", ".pfx", ".kdbx", ".jks":
		return "by its name a key"
	}
	return ""
}

// under reports whether p is dir or lies below it.
func under(p, dir string) bool {
	return p == dir || dir == "/" || strings.HasPrefix(p, dir+"/")
}

func underAny(p string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool { return under(p, dir) })
}

// sameCommand reports whether a command as a rule writes it is the one asked about, as far as that can be told
// without the host's files: by name where one of the two has no directory and the other lies on the search path.
func sameCommand(rule, asked string) bool {
	if rule == asked {
		return true
	}
	named, full := rule, asked
	if strings.Contains(named, "/") {
		named, full = asked, rule
	}
	if strings.Contains(named, "/") || path.Base(full) != named {
		return false
	}
	return slices.Contains(strings.Split(SearchPath, ":"), path.Dir(full))
}

// sameHelper is sameCommand for a helper, which may be a pattern.
func sameHelper(rule, asked string) bool {
	if sameCommand(rule, asked) {
		return true
	}
	ok, _ := path.Match(rule, asked)
	return ok && strings.Contains(rule, "/")
}
