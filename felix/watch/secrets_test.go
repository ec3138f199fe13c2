package watch

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	restfake "k8s.io/client-go/rest/fake"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/felix/event"
)

// vault is an API server with Secrets, which lists each by its name and to nobody
// in any other way.
type vault struct {
	mu     sync.Mutex        // guards the rest
	data   map[string]string // base64, by name
	asked  map[string]bool
	wrong  []string // requests that nobody may make
	denied bool
}

func (v *vault) client() rest.Interface {
	return &restfake.RESTClient{
		NegotiatedSerializer: scheme.Codecs.WithoutConversion(), GroupVersion: corev1.SchemeGroupVersion, VersionedAPIPath: "/api/v1",
		Client: restfake.CreateHTTPClient(v.serve),
	}
}

func (v *vault) serve(r *http.Request) (*http.Response, error) {
	header := http.Header{"Content-Type": {"application/json"}}
	reply := func(status int, body string) (*http.Response, error) {
		return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(bytes.NewBufferString(body))}, nil
	}
	q := r.URL.Query()
	v.mu.Lock()
	defer v.mu.Unlock()
	name, byName := strings.CutPrefix(q.Get("fieldSelector"), "metadata.name=")
	if !byName || !strings.HasSuffix(r.URL.Path, "/namespaces/ours/secrets") {
		v.wrong = append(v.wrong, r.URL.String())
	}
	v.asked[name] = true
	switch {
	case v.denied:
		return reply(http.StatusForbidden, `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403, "reason": "Forbidden"}`)
	case q.Get("sendInitialEvents") != "":
		return reply(http.StatusBadRequest, `{}`) // not known here: the client lists instead
	case q.Get("watch") != "":
		v.mu.Unlock()
		<-r.Context().Done()
		v.mu.Lock()
		return nil, r.Context().Err()
	}
	items := ""
	if value, there := v.data[name]; there {
		items = fmt.Sprintf(`{"metadata": {"name": %q, "namespace": "ours"}, "data": {"key": %q}}`, name, value)
	}
	return reply(http.StatusOK, fmt.Sprintf(`{"kind": "SecretList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": [%s]}`, items))
}

// watchSecrets runs secrets until the test ends; what it posts comes out of told.
func watchSecrets(t *testing.T, v *vault) (s *secrets, listed chan struct{}, synced chan struct{}, told chan event.Event) {
	t.Helper()
	told, listed, synced = make(chan event.Event, 100), make(chan struct{}), make(chan struct{})
	s = newSecrets(v.client(), "ours", func(evs ...event.Event) {
		for _, ev := range evs {
			if ev.Key.Kind == event.SecretKind {
				told <- ev
			}
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.run(ctx, listed, func() { close(synced) }) }()
	t.Cleanup(func() { cancel(); <-done })
	return s, listed, synced, told
}

func peerWith(name, secret string) event.Event {
	return event.Set(name, &event.Peer{Name: name, Password: &event.SecretKey{Secret: secret, Key: "key"}})
}

func TestItem69SecretsThatAreNamedAreWatchedAndNoOthers(t *testing.T) {
	v := &vault{data: map[string]string{"one": "c2VjcmV0Cg==", "other": "eA=="}, asked: map[string]bool{}}
	s, listed, synced, told := watchSecrets(t, v)
	s.hear(peerWith("tor-a", "one"), peerWith("tor-b", "one"), event.Set("tor-c", &event.Peer{}))
	close(listed)
	ev := hear(t, told, "the secret")
	if got := ev.Value.(*event.Secret); ev.Key.Name != "one" || got.Values["key"] != bgp.Password("secret") {
		t.Errorf("heard %+v, want the value without the end of its line", ev)
	}
	hear(t, synced, "Synced")
	s.hear(event.Gone(event.PeerKind, "tor-a"), peerWith("tor-b", "missing"))
	if ev := hear(t, told, "the end of the secret"); ev.Value != nil || ev.Key.Name != "one" {
		t.Errorf("heard %+v, want that the secret is not known any more", ev)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.asked["other"] || len(v.wrong) > 0 {
		t.Errorf("asked for %v and %v", v.asked, v.wrong)
	}
}

func TestItem69AForbiddenSecretKeepsNobodyWaitingForLong(t *testing.T) {
	v := &vault{asked: map[string]bool{}, denied: true}
	s, listed, synced, told := watchSecrets(t, v)
	s.hear(event.Set("default", &event.BGP{Password: &event.SecretKey{Secret: "one", Key: "key"}}))
	close(listed)
	select {
	case <-synced:
	case <-time.After(secretWait + 30*time.Second):
		t.Fatal("the engine waits for a secret that nobody may read")
	}
	if len(told) > 0 {
		t.Errorf("heard %+v", <-told)
	}
}

func TestASecretPrintsNoValue(t *testing.T) {
	_, v := secret(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Data: map[string][]byte{"key": []byte("hush\r\n")}})
	if text := fmt.Sprintf("%v %+v %#v", v, v, v); strings.Contains(text, "hush") || v.(*event.Secret).Values["key"] != "hush" {
		t.Errorf("printed: %s", text)
	}
}
