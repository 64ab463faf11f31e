package sandbox

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Trust is a certificate that programs inside are to trust beside what the system has. The zero value is none.
type Trust struct {
	PEM  []byte // the certificate
	Hash string // of its subject, as OpenSSL looks for it in a directory
	File string // name of a file of /etc with all that is to be trusted, for programs that are told of one
	Host []byte // what the host trusts: File begins with it, where an image has no bundle of its own
}

// bundles are where programs look for the certificates that the system trusts: Debian's, Red Hat's, openSUSE's and Alpine's. Most
// are one file under several names.
var bundles = []string{
	"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
	"/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem",
}

// certDir is where OpenSSL looks for one certificate, by its hash.
const certDir = "/etc/ssl/certs"

// maxBundle bounds a bundle. They have about 220 KiB.
const maxBundle = 1 << 20

// addTrust puts the certificate into the layer over /etc: into a copy of each bundle that is there, and into the directory. The
// system's own are not touched. What a rule hides stays hidden.
func (v *view) addTrust(t *tree, lower, layer int, trust Trust) error {
	if trust.PEM == nil {
		return nil
	}
	all := trust.Host
	if t.source != "" {
		root, err := openReal(path.Dir(t.source))
		if err != nil {
			return err
		}
		defer unix.Close(root)
		own, err := v.addToBundles(root, lower, layer, trust.PEM)
		if err == nil {
			err = v.addToDir(root, lower, layer, trust)
		}
		if err != nil {
			return err
		}
		if own != nil && t.source != "/etc" {
			all = own
		}
	}
	return v.writeEtc(lower, layer, trust.File, joined(all, trust.PEM))
}

// addToBundles returns the certificates of the first bundle.
func (v *view) addToBundles(root, lower, layer int, cert []byte) (first []byte, err error) {
	for _, name := range bundles {
		at, certs, err := v.bundle(root, name)
		if err != nil {
			return nil, fmt.Errorf("the trusted certificates in %s: %w", name, err)
		}
		if at == "" {
			continue
		}
		if err := v.writeEtc(lower, layer, at, joined(certs, cert)); err != nil {
			return nil, err
		}
		if first == nil {
			first = certs
		}
	}
	return first, nil
}

func (v *view) addToDir(root, lower, layer int, trust Trust) error {
	fd, err := openIn(root, certDir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return absent(err)
	}
	defer unix.Close(fd)
	at, err := inEtc(root, fd)
	if err != nil || at == "" {
		return err
	}
	return v.writeEtc(lower, layer, path.Join(at, trust.Hash+".0"), trust.PEM)
}

// bundle reads a bundle's certificates and says where in /etc it really is; "": there is none. Nothing but certificates is taken: a
// link may lead anywhere. One that leads out of /etc is replaced by a file.
func (v *view) bundle(root int, name string) (at string, certs []byte, err error) {
	if underAny(name, v.plan.hidden) {
		return "", nil, nil
	}
	fd, err := openIn(root, name, unix.O_PATH)
	if err != nil {
		return "", nil, absent(err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return "", nil, err
	}
	if at, err = inEtc(root, fd); err == nil && at == "" {
		var dir int
		if dir, err = openIn(root, path.Dir(name), unix.O_PATH|unix.O_DIRECTORY); err != nil {
			return "", nil, err
		}
		defer unix.Close(dir)
		if at, err = inEtc(root, dir); at != "" {
			at = path.Join(at, path.Base(name))
		}
	}
	if err != nil || at == "" {
		return "", nil, err
	}
	text, err := os.Open(fmt.Sprintf("/proc/thread-self/fd/%d", fd))
	if err != nil {
		return "", nil, err
	}
	defer text.Close()
	all, err := io.ReadAll(io.LimitReader(text, maxBundle+1))
	if err == nil && len(all) > maxBundle {
		err = fmt.Errorf("it is larger than %d MiB", maxBundle>>20)
	}
	return at, certificates(all), err
}

// certificates are those of a text, and nothing else of it.
func certificates(text []byte) []byte {
	var out bytes.Buffer
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return out.Bytes()
		}
		if strings.HasSuffix(block.Type, "CERTIFICATE") {
			_ = pem.Encode(&out, &pem.Block{Type: block.Type, Bytes: block.Bytes}) // a buffer takes it
		}
	}
}

// inEtc is the name below /etc of what is open, as a process inside sees it; "": it is elsewhere.
func inEtc(root, fd int) (string, error) {
	at, err := os.Readlink(fmt.Sprintf("/proc/thread-self/fd/%d", fd))
	if err != nil {
		return "", err
	}
	top, err := os.Readlink(fmt.Sprintf("/proc/thread-self/fd/%d", root))
	if err != nil {
		return "", err
	}
	name, _ := strings.CutPrefix(strings.TrimPrefix(at, strings.TrimSuffix(top, "/")), "/etc/")
	if path.IsAbs(name) {
		return "", nil
	}
	return name, nil
}

// writeEtc writes a file into the layer, unless a rule hides it or it is there.
func (v *view) writeEtc(lower, layer int, name string, content []byte) error {
	if underAny("/etc/"+name, v.plan.hidden) {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstatat(layer, name, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil {
		return nil
	}
	if err := copyDirs(lower, layer, path.Dir(name)); err != nil {
		return err
	}
	return writeAt(layer, name, content, 0o644)
}

// joined are two texts of certificates as one.
func joined(a, b []byte) []byte {
	out := bytes.Clone(a)
	if len(out) > 0 && out[len(out)-1] != '\n' {
		out = append(out, '\n')
	}
	return append(out, b...)
}

// absent makes nothing of an error that says that a name leads nowhere.
func absent(err error) error {
	for _, is := range []error{unix.ENOENT, unix.ENOTDIR, unix.ELOOP} {
		if errors.Is(err, is) {
			return nil
		}
	}
	return err
}
