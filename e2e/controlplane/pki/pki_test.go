package pki

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

func newAuthority(t *testing.T) *Authority {
	t.Helper()
	a, err := LoadOrCreate(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *Authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func parse(t *testing.T, certPEM []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(certPEM)
	if block == nil {
		t.Fatal("no PEM block in the certificate")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestServerCertificateIsValidForItsNamesOnly(t *testing.T) {
	a := newAuthority(t)
	pair, err := a.Server("kubernetes.default.svc", "10.96.0.1", "fd00::1")
	if err != nil {
		t.Fatal(err)
	}
	cert := parse(t, pair.Cert)
	for name, want := range map[string]bool{
		"kubernetes.default.svc": true,
		"10.96.0.1":              true,
		"[fd00::1]":              true,
		"kubernetes":             false,
		"10.96.0.2":              false,
	} {
		_, err := cert.Verify(x509.VerifyOptions{Roots: a.pool(), DNSName: name})
		if got := err == nil; got != want {
			t.Errorf("valid for %s = %v (%v), want %v", name, got, err, want)
		}
	}
	clientUse := x509.VerifyOptions{Roots: a.pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if _, err := cert.Verify(clientUse); err == nil {
		t.Error("a serving certificate passes as that of a client")
	}
}

func TestAuthorityOutlivesItsProcess(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(dir); err == nil {
		t.Fatal("an authority was loaded from an empty directory")
	}
	first, err := LoadOrCreate(dir)
	if err != nil {
		t.Fatal(err)
	}
	second, err := LoadOrCreate(dir)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := second.Client("korat:agent")
	if err != nil {
		t.Fatal(err)
	}
	opts := x509.VerifyOptions{Roots: first.pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if _, err := parse(t, pair.Cert).Verify(opts); err != nil {
		t.Error(err)
	}
}

// TestKubeconfigOpensAServerAsItsUser goes the whole way: a TLS server that asks
// for client certificates sees the user and the groups of the kubeconfig.
func TestKubeconfigOpensAServerAsItsUser(t *testing.T) {
	a := newAuthority(t)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		subject := r.TLS.PeerCertificates[0].Subject
		slices.Sort(subject.Organization)
		io.WriteString(w, subject.String())
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	serving, err := a.Server("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(serving.Cert, serving.Key)
	if err != nil {
		t.Fatal(err)
	}
	server.TLS = &tls.Config{
		Certificates: []tls.Certificate{cert},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    a.pool(),
	}
	server.StartTLS()
	t.Cleanup(server.Close)

	text, err := a.ClientKubeconfig(server.URL, "korat:agent", "korat:nodes", "system:authenticated")
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(text)
	if err != nil {
		t.Fatal(err)
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Get(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if want := "CN=korat:agent,O=korat:nodes+O=system:authenticated"; string(got) != want {
		t.Errorf("the server saw %s, want %s", got, want)
	}
}

func TestServerOfIsTheURLInTheFile(t *testing.T) {
	a := newAuthority(t)
	text, err := a.ClientKubeconfig("https://127.0.0.1:6443", "kubernetes-admin", "system:masters")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "admin.kubeconfig")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := ServerOf(file)
	if err != nil {
		t.Fatal(err)
	}
	if want := "https://127.0.0.1:6443"; got != want {
		t.Errorf("ServerOf = %s, want %s", got, want)
	}
}

func TestTokenKeysAreKept(t *testing.T) {
	dir := t.TempDir()
	private, public := filepath.Join(dir, "sa.key"), filepath.Join(dir, "sa.pub")
	read := func() string {
		t.Helper()
		if err := WriteTokenKeys(private, public); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(private)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if first, second := read(), read(); first != second {
		t.Error("the second call made other keys")
	}
}
