package harness

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// CA is the world's certificate authority. It issues for any name a client asks for, as the test's servers must show names
// that a sandbox should never have reached.
type CA struct {
	PEM []byte

	cert *x509.Certificate
	key  *ecdsa.PrivateKey

	mu     sync.Mutex
	leaves map[string]*tls.Certificate
}

func newCA() (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "NemoClaw test CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &CA{
		PEM:  pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		cert: cert, key: key, leaves: map[string]*tls.Certificate{},
	}, nil
}

// Config serves a certificate for whatever name the client asked for; fallback is for clients that ask for none.
func (ca *CA) Config(fallback string) *tls.Config {
	return &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		name := hello.ServerName
		if name == "" {
			name = fallback
		}
		return ca.leaf(name)
	}}
}

// Client trusts the world's authority, and wants a server of one name.
func (ca *CA) Client(name string) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	return &tls.Config{RootCAs: roots, ServerName: name}
}

// Files writes a certificate for a name, and its key, as a server reads them.
func (ca *CA) Files(t T, dir, name string) (cert, key string) {
	t.Helper()
	leaf, err := ca.leaf(name)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: leaf.Certificate[0]}, key: {Type: "PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func (ca *CA) leaf(name string) (*tls.Certificate, error) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	if c := ca.leaves[name]; c != nil {
		return c, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(int64(len(ca.leaves) + 2)), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ip := net.ParseIP(name); ip != nil {
		tmpl.DNSNames, tmpl.IPAddresses = nil, []net.IP{ip}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.cert, key.Public(), ca.key)
	if err != nil {
		return nil, err
	}
	c := &tls.Certificate{Certificate: [][]byte{der, ca.cert.Raw}, PrivateKey: key}
	ca.leaves[name] = c
	return c, nil
}

// ECH makes a key for Encrypted ClientHello whose outer name is public, and the list that a client needs to use it (RFC 9849, section
// 4: one configuration, X25519, HKDF-SHA256, AES-128-GCM).
func ECH(public string) (tls.EncryptedClientHelloKey, []byte, error) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return tls.EncryptedClientHelloKey{}, nil, err
	}
	const version, kem, kdf, aead, id, longest = 0xfe0d, 0x0020, 0x0001, 0x0001, 7, 64
	be := binary.BigEndian
	body := []byte{id}
	body = be.AppendUint16(body, kem)
	body = be.AppendUint16(body, uint16(len(key.PublicKey().Bytes())))
	body = append(body, key.PublicKey().Bytes()...)
	body = be.AppendUint16(body, 4)
	body = be.AppendUint16(body, kdf)
	body = be.AppendUint16(body, aead)
	body = append(body, longest, byte(len(public)))
	body = append(body, public...)
	body = be.AppendUint16(body, 0)
	config := be.AppendUint16(nil, version)
	config = be.AppendUint16(config, uint16(len(body)))
	config = append(config, body...)
	list := be.AppendUint16(nil, uint16(len(config)))
	list = append(list, config...)
	if len(public) > 255 {
		return tls.EncryptedClientHelloKey{}, nil, fmt.Errorf("the name %q is too long for ECH", public)
	}
	return tls.EncryptedClientHelloKey{Config: config, PrivateKey: key.Bytes(), SendAsRetry: true}, list, nil
}
