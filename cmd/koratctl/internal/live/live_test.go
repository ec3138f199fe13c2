package live

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/client-go/rest"
)

// server answers for pods in two pages and for namespaces; NetworkPolicies are
// forbidden if that is asked for, and all else is not served.
func server(t *testing.T, forbid bool) *rest.Config {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch path := r.URL.Path; {
		case path == "/api/v1/namespaces":
			fmt.Fprint(w, `{"apiVersion":"v1","kind":"NamespaceList","metadata":{},"items":[{"metadata":{"name":"shop"}}]}`)
		case path == "/api/v1/pods" && r.URL.Query().Get("continue") == "":
			fmt.Fprint(w, `{"apiVersion":"v1","kind":"PodList","metadata":{"continue":"more"},"items":[{"metadata":{"namespace":"shop","name":"a"}}]}`)
		case path == "/api/v1/pods":
			fmt.Fprint(w, `{"apiVersion":"v1","kind":"PodList","metadata":{},"items":[{"metadata":{"namespace":"shop","name":"b"}}]}`)
		case forbid && path == "/apis/networking.k8s.io/v1/networkpolicies":
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"apiVersion":"v1","kind":"Status","status":"Failure","code":403,"reason":"Forbidden","message":"user nobody may not"}`)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(s.Close)
	return &rest.Config{Host: s.URL}
}

func TestAllPagesOfServedKindsAreRead(t *testing.T) {
	objects, err := Read(t.Context(), server(t, false))
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, o := range objects {
		got += fmt.Sprintf("%s %s of %s\n", o.APIVersion, o, o.Place)
	}
	want := "v1 Namespace shop of the cluster\nv1 Pod shop/a of the cluster\nv1 Pod shop/b of the cluster\n"
	if got != want {
		t.Errorf("%swant\n%s", got, want)
	}
}

func TestWhatMayNotBeReadIsNoEmptyList(t *testing.T) {
	_, err := Read(t.Context(), server(t, true))
	if err == nil || !strings.Contains(err.Error(), "list networkpolicies of networking.k8s.io/v1 at http://") || !strings.Contains(err.Error(), "user nobody may not") {
		t.Errorf("%v", err)
	}
}

func TestCredentials(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config")
	text := `apiVersion: v1
kind: Config
clusters: [{name: one, cluster: {server: https://one:6443}}, {name: two, cluster: {server: https://two:6443}}]
contexts: [{name: one, context: {cluster: one}}, {name: two, context: {cluster: two}}]
current-context: one
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for context, want := range map[string]string{"": "https://one:6443", "two": "https://two:6443"} {
		cfg, err := Config(path, context, "koratctl/test")
		if err != nil || cfg.Host != want || cfg.UserAgent != "koratctl/test" {
			t.Errorf("context %q: %v, %v; want %s", context, cfg, err, want)
		}
	}
	if _, err := Config(path, "three", ""); err == nil || !strings.Contains(err.Error(), "manifests with -f") {
		t.Errorf("an unknown context: %v", err)
	}
}
