// Package pki makes the keys and certificates of a throw-away cluster: one
// authority in one directory, which signs the certificate of the API server,
// those of its clients, and writes kubeconfig files for them.
//
// It knows nothing of Kubernetes' servers, so that it is built and tested in
// seconds. A directory belongs to one cluster; two processes may load it at the
// same time, one may create it.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// Lifetimes of what is signed. A clock that is a little behind must not refuse
// a certificate made a moment ago, therefore all are valid from an hour before.
const (
	caLifetime   = 10 * 365 * 24 * time.Hour
	leafLifetime = 365 * 24 * time.Hour
	clockSkew    = time.Hour
)

// Names of the files of an authority's directory.
const (
	caCertFile = "ca.crt"
	caKeyFile  = "ca.key"
)

// Authority signs certificates. It is safe for concurrent use.
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// Pair is a certificate and its private key, both PEM.
type Pair struct {
	Cert, Key []byte
}

// Load reads the authority that Create left in dir.
func Load(dir string) (*Authority, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, caCertFile), filepath.Join(dir, caKeyFile))
	if err != nil {
		return nil, fmt.Errorf("load authority: %w", err)
	}
	signer, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("load authority: a %T cannot sign", pair.PrivateKey)
	}
	return &Authority{cert: pair.Leaf, key: signer}, nil
}

// LoadOrCreate reads the authority in dir, or makes one there when dir holds none.
func LoadOrCreate(dir string) (*Authority, error) {
	a, err := Load(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return create(dir)
	}
	return a, err
}

func create(dir string) (*Authority, error) {
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "korat-lab-ca"},
		NotAfter:              time.Now().Add(caLifetime),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("create authority: %w", err)
	}
	pair, err := sign(template, template, key, key)
	if err != nil {
		return nil, fmt.Errorf("create authority: %w", err)
	}
	if err := pair.Write(filepath.Join(dir, caCertFile), filepath.Join(dir, caKeyFile)); err != nil {
		return nil, fmt.Errorf("create authority: %w", err)
	}
	return Load(dir)
}

// Cert is the certificate of the authority, PEM.
func (a *Authority) Cert() []byte {
	return pemBlock("CERTIFICATE", a.cert.Raw)
}

// Server signs a serving certificate for names, each an IP address or a DNS name.
func (a *Authority) Server(names ...string) (Pair, error) {
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range names {
		if addr, err := netip.ParseAddr(name); err == nil {
			template.IPAddresses = append(template.IPAddresses, addr.AsSlice())
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	return a.leaf(template)
}

// Client signs a certificate that Kubernetes takes for user, a member of groups.
func (a *Authority) Client(user string, groups ...string) (Pair, error) {
	return a.leaf(&x509.Certificate{
		Subject:     pkix.Name{CommonName: user, Organization: groups},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

func (a *Authority) leaf(template *x509.Certificate) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("sign %s: %w", template.Subject, err)
	}
	template.NotAfter = time.Now().Add(leafLifetime)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	pair, err := sign(template, a.cert, key, a.key)
	if err != nil {
		return Pair{}, fmt.Errorf("sign %s: %w", template.Subject, err)
	}
	return pair, nil
}

func sign(template, parent *x509.Certificate, key *ecdsa.PrivateKey, signer crypto.Signer) (Pair, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return Pair{}, err
	}
	template.SerialNumber = serial
	template.NotBefore = time.Now().Add(-clockSkew)
	cert, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return Pair{}, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return Pair{}, err
	}
	return Pair{Cert: pemBlock("CERTIFICATE", cert), Key: pemBlock("EC PRIVATE KEY", der)}, nil
}

// Write puts the pair into two files, the key readable by its owner only.
func (p Pair) Write(certFile, keyFile string) error {
	if err := os.WriteFile(keyFile, p.Key, 0o600); err != nil {
		return err
	}
	return os.WriteFile(certFile, p.Cert, 0o644)
}

// WriteTokenKeys makes the key pair that signs and verifies the tokens of
// ServiceAccounts. Keys that exist are kept: tokens signed with them are in use.
func WriteTokenKeys(privateFile, publicFile string) error {
	if _, err := os.Stat(publicFile); err == nil {
		return nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("token keys: %w", err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return fmt.Errorf("token keys: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return fmt.Errorf("token keys: %w", err)
	}
	pair := Pair{Cert: pemBlock("PUBLIC KEY", public), Key: pemBlock("EC PRIVATE KEY", private)}
	if err := pair.Write(publicFile, privateFile); err != nil {
		return fmt.Errorf("token keys: %w", err)
	}
	return nil
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
