package risk

import (
	"path"
	"slices"
	"strings"

	"github.com/nemoclaw/nemoclaw/policy"
)

func (n *notes) file(a Attempt) {
	if secret := policy.Reveals(path.Clean("/" + a.Object)); secret != "" {
		n.danger("credentials", "what is there may be secret: %s", secret)
	}
	if !policy.ReadsOnly(a.Action) {
		if what := startedLater(a.Object); what != "" {
			n.danger("persistence", "what is written there is run later, maybe outside the sandbox: %s", what)
		}
	}
}

// A starter is a place whose content is executed by somebody else, at another time.
type starter struct {
	names string // elements of a path, or the last ones of it, with blanks around each
	what  string
}

// starters are told apart by names wherever they lie: a workspace, a home, /etc.
var starters = []starter{
	{" .bashrc .bash_profile .bash_login .bash_logout .bash_aliases .profile .zshrc .zshenv .zprofile .zlogin .zlogout .kshrc .cshrc .tcshrc .login" +
		" .config/fish .envrc .pam_environment .inputrc .config/environment.d ", "a shell that starts"},
	{" .xprofile .xsession .xsessionrc .xinitrc .config/autostart .config/plasma-workspace xdg/autostart ", "a desktop session that starts"},
	{" .git/hooks .git/config .git/modules .githooks .husky .gitconfig .config/git .gitmodules .hg/hgrc .hgrc ", "git, as a hook or by its configuration"},
	{" .vscode/tasks.json .vscode/settings.json .vscode/launch.json .devcontainer .devcontainer.json .idea .zed .vim .vimrc .exrc .nvimrc .config/nvim" +
		" .emacs .emacs.d .config/emacs .nanorc ", "an editor that opens the directory"},
	{" .config/systemd .local/share/systemd systemd/system systemd/user ", "a unit of systemd"},
	{" .ssh/rc .ssh/config .ssh/authorized_keys .tmux.conf .screenrc .gdbinit .lldbinit .wgetrc .curlrc .condarc pip.conf .npmrc .yarnrc .pnpmfile.cjs ",
		"a tool that reads it when it starts"},
	{" sitecustomize.py usercustomize.py .pythonrc ", "every Python program"},
	{" .claude/settings.json .claude/hooks .cursor .mcp.json .codex .gemini ", "an assistant that reads it when it starts"},
}

// startersOfHost are directories and files of a host.
var startersOfHost = []starter{
	{" /etc/profile /etc/profile.d /etc/bash.bashrc /etc/zsh /etc/environment /etc/skel ", "a shell that starts"},
	{" /etc/crontab /etc/cron.d /etc/cron.hourly /etc/cron.daily /etc/cron.weekly /etc/cron.monthly /etc/anacrontab /var/spool/cron /var/spool/at ", "cron"},
	{" /etc/init.d /etc/rc.local /etc/inittab /etc/systemd /lib/systemd /usr/lib/systemd /run/systemd /usr/local/lib/systemd /boot /etc/initramfs-tools ", "the host that starts"},
	{" /etc/ld.so.preload /etc/ld.so.conf /etc/ld.so.conf.d ", "every program"},
	{" /etc/udev /usr/lib/udev /lib/udev /etc/modprobe.d /etc/modules-load.d /etc/pam.d /lib/security /etc/apt /etc/dpkg /etc/NetworkManager/dispatcher.d" +
		" /etc/network /etc/logrotate.d /etc/acpi /etc/dhcp ", "a service of the host"},
	{" /bin /sbin /usr/bin /usr/sbin /usr/local/bin /usr/local/sbin /lib /lib64 /usr/lib /usr/lib64 /usr/local/lib /opt/bin ", "programs of the host, or with them"},
}

// startedLater says what executes the content of a path that is written; "" for nothing known.
func startedLater(p string) string {
	p = path.Clean("/" + p)
	elements := strings.Split(p[1:], "/")
	for i, e := range elements {
		for _, s := range starters {
			if has(s.names, e) || i > 0 && has(s.names, elements[i-1]+"/"+e) {
				return s.what
			}
		}
	}
	if path.Ext(p) == ".pth" {
		return "every Python program"
	}
	for at := p; at != "/"; at = path.Dir(at) {
		for _, s := range startersOfHost {
			if has(s.names, at) {
				return s.what
			}
		}
	}
	return ""
}

func has(names, name string) bool {
	return name != "" && !strings.Contains(name, " ") && strings.Contains(names, " "+name+" ")
}

// interpreters run what they are told to, by an argument, a file or their input.
const interpreters = " sh bash dash ash zsh ksh mksh fish csh tcsh rbash busybox toybox python pypy perl ruby irb node nodejs deno bun php lua luajit" +
	" tclsh wish expect awk gawk mawk nawk guile java jshell dotnet mono pwsh Rscript R julia ghci runghc erl escript elixir iex groovy scala swipl" +
	" sqlite3 psql make gmake gdb lldb vim vi nvim emacs ed m4 tcc go cargo npx uvx uv npm pnpm yarn pip pipx poetry "

// relays carry bytes anywhere, or look for what can be reached.
const relays = " nc ncat netcat nc.openbsd nc.traditional socat nmap masscan tcpdump ssh telnet rsh proxytunnel chisel cloudflared ngrok tor torsocks proxychains" +
	" proxychains4 "

// isInterpreter reports whether a program, by its name without a version (python3.11), runs what it is told to.
func isInterpreter(p string) bool {
	base := path.Base(p)
	return has(interpreters, base) || has(interpreters, strings.TrimRight(base, "0123456789.-"))
}

func (n *notes) program(a Attempt) {
	p := a.Object
	if a.Writable {
		const says = "the sandbox can write this program, so it can be anything by the time it runs"
		if runsAnything(a.Policy) {
			n.note("writable-program", says)
		} else {
			n.danger("writable-program", says+", and the policy lets no interpreter run")
		}
	}
	switch {
	case isInterpreter(p):
		n.note("interpreter", "%s runs what it is told to, which no rule judges by name", path.Base(p))
	case has(relays, path.Base(p)):
		n.note("relay", "%s carries bytes to and from anywhere that the network rules allow", path.Base(p))
	}
}

// runsAnything reports whether a policy lets a program run that itself runs what it is told to: then one more gives nothing new.
func runsAnything(c *policy.Compiled) bool {
	return slices.ContainsFunc(c.Exec.Allow, func(x policy.Command) bool { return isInterpreter(x.Name) })
}
