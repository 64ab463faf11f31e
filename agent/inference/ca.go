package inference

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"strings"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/atomicfile"
	"github.com/nemoclaw/nemoclaw/policy"
)

// authorityLife is how long a sandbox's authority is good for.
const authorityLife = 10 * 365 * 24 * time.Hour

// An Authority is one sandbox's certificate authority. It can vouch for the router's name and no other, which is written in it;
// its key never leaves this process and the file that it is kept in.
type Authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

// OpenAuthority reads the authority kept in a file, which is root's alone, or makes one and keeps it there; "": it is kept nowhere.
func OpenAuthority(file string) (*Authority, error) {
	if file == "" {
		return newAuthority()
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		a, err := newAuthority()
		if err != nil {
			return nil, err
		}
		return a, a.keep(file)
	}
	if err != nil {
		return nil, fmt.Errorf("the sandbox's certificate authority: %w", err)
	}
	a, err := parseAuthority(text)
	if err != nil {
		return nil, fmt.Errorf("the sandbox's certificate authority %s: %w; remove the file, and start the sandbox again", file, err)
	}
	return a, nil
}

func newAuthority() (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the sandbox's certificate authority: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "NemoClaw sandbox, for " + policy.InferenceName + " only"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(authorityLife),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
		PermittedDNSDomainsCritical: true, PermittedDNSDomains: []string{policy.InferenceName},
		ExcludedIPRanges: []*net.IPNet{{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, {IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("making the sandbox's certificate authority: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	return &Authority{key, cert}, err
}

// keep writes both halves to a file.
func (a *Authority) keep(file string) error {
	der, err := x509.MarshalECPrivateKey(a.key)
	if err == nil {
		err = atomicfile.Write(file, append(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), a.PEM()...))
	}
	if err != nil {
		return fmt.Errorf("keeping the sandbox's certificate authority: %w", err)
	}
	return nil
}

func parseAuthority(text []byte) (*Authority, error) {
	keyBlock, rest := pem.Decode(text)
	certBlock, _ := pem.Decode(rest)
	if keyBlock == nil || certBlock == nil {
		return nil, errors.New("a key and a certificate are expected")
	}
	key, err := x509.ParseECPrivateKey(keyBlock.Bytes)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(certBlock.Bytes)
	if err != nil {
		return nil, err
	}
	return &Authority{key, cert}, nil
}

// PEM is its certificate, which programs inside are to trust.
func (a *Authority) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// leaf makes the router's own certificate.
func (a *Authority) leaf() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: policy.InferenceName}, DNSNames: []string{policy.InferenceName},
		NotBefore: a.cert.NotBefore, NotAfter: a.cert.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	return tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key}, err
}

func serial() *big.Int {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	return new(big.Int).SetBytes(b)
}

// The certificates that this host trusts are in the first of these files that is there (Debian, Fedora, openSUSE, Alpine).
var hostBundles = []string{
	"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem",
}

// BundleName is the file of the sandbox's /etc that has what programs inside are to trust.
const BundleName = "nemoclaw-ca.pem"

// HostBundle is what the host trusts; nothing where it has no certificates. SSL_CERT_FILE of this process names another bundle, as
// it does to OpenSSL.
func HostBundle() []byte {
	for _, file := range append([]string{os.Getenv("SSL_CERT_FILE")}, hostBundles...) {
		if text, err := os.ReadFile(file); err == nil {
			return text
		}
	}
	return nil
}

// Hash is what OpenSSL calls the file of the certificate in a directory of them: the beginning of the SHA-1 of its subject, which
// is one common name, in a form in which capitals and blanks make no difference.
func (a *Authority) Hash() string {
	type attribute struct {
		Type  asn1.ObjectIdentifier
		Value asn1.RawValue
	}
	name, err := asn1.MarshalWithParams([]attribute{{
		asn1.ObjectIdentifier{2, 5, 4, 3}, asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: []byte(strings.ToLower(a.cert.Subject.CommonName))},
	}}, "set")
	if err != nil {
		panic(err) // it is a text: can't be
	}
	sum := sha1.Sum(name)
	return fmt.Sprintf("%08x", binary.LittleEndian.Uint32(sum[:]))
}

// TrustVariables have the programs that know them trust the bundle.
func TrustVariables() []string {
	var list []string
	for _, name := range []string{"NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO"} {
		list = append(list, name+"=/etc/"+BundleName)
	}
	return list
}
