package watch

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata/fake"
	restfake "k8s.io/client-go/rest/fake"
	clienttesting "k8s.io/client-go/testing"
	policyv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/felix/kube"
	"github.com/koratnet/korat/policy/convert"
)

// visit runs the guest for ClusterNetworkPolicies against an API server that
// answers for them with status and body, and returns what is heard.
func visit(t *testing.T, client *fake.FakeMetadataClient, status int, body string) (synced chan struct{}, names chan string) {
	t.Helper()
	scheme, err := kube.Scheme()
	if err != nil {
		t.Fatal(err)
	}
	rest := &restfake.RESTClient{
		GroupVersion:         schema.GroupVersion(policyv1alpha2.GroupVersion),
		NegotiatedSerializer: serializer.NewCodecFactory(scheme).WithoutConversion(),
		Client: restfake.CreateHTTPClient(func(r *http.Request) (*http.Response, error) {
			header := http.Header{"Content-Type": {"application/json"}}
			switch q := r.URL.Query(); {
			case q.Get("sendInitialEvents") != "": // not known here: the client lists instead
				return &http.Response{StatusCode: http.StatusBadRequest, Header: header, Body: io.NopCloser(bytes.NewBufferString(`{}`))}, nil
			case q.Get("watch") != "":
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(bytes.NewBufferString(body))}, nil
		}),
	}
	g := guest{feed{
		rest, "clusternetworkpolicies", &policyv1alpha2.ClusterNetworkPolicy{},
		event.PolicyKind, policyOf(convert.ClusterNetworkPolicy), nil,
	}, "clusternetworkpolicies.policy.networking.k8s.io"}
	synced, names = make(chan struct{}), make(chan string, 100)
	store := &letterbox{
		kind: g.kind, convert: g.convert, known: map[string]struct{}{}, synced: func() { close(synced) },
		post: func(evs ...event.Event) {
			for _, ev := range evs {
				if ev.Value == nil {
					names <- "-" + ev.Key.Name
				} else {
					names <- "+" + ev.Key.Name
				}
			}
		},
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); g.run(ctx, client, store) }()
	t.Cleanup(func() { cancel(); <-done })
	return synced, names
}

func definition() *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apiextensions.k8s.io/v1", Kind: "CustomResourceDefinition"},
		ObjectMeta: metav1.ObjectMeta{Name: "clusternetworkpolicies.policy.networking.k8s.io"},
	}
}

func metadataClient(t *testing.T, objects ...runtime.Object) *fake.FakeMetadataClient {
	t.Helper()
	scheme := fake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	scheme.AddKnownTypeWithName(schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinitionList"}, &metav1.PartialObjectMetadataList{})
	return fake.NewSimpleMetadataClient(scheme, objects...)
}

// hear waits for something to come.
func hear[V any](t *testing.T, from <-chan V, what string) V {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(20 * time.Second):
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

const onePolicy = `{"kind": "ClusterNetworkPolicyList", "apiVersion": "policy.networking.k8s.io/v1alpha2", "metadata": {"resourceVersion": "1"},
	"items": [{"metadata": {"name": "guard"}, "spec": {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}}}]}`

func TestAKindThatIsNotServedKeepsNobodyWaiting(t *testing.T) {
	synced, _ := visit(t, metadataClient(t), http.StatusNotFound, `{"kind": "Status", "apiVersion": "v1", "code": 404, "reason": "NotFound", "status": "Failure"}`)
	hear(t, synced, "Synced without a definition")
}

func TestADefinitionOfAnotherVersionKeepsNobodyWaiting(t *testing.T) {
	synced, _ := visit(t, metadataClient(t, definition()), http.StatusNotFound, `{"kind": "Status", "apiVersion": "v1", "code": 404, "reason": "NotFound", "status": "Failure"}`)
	hear(t, synced, "Synced with a definition of another version")
}

func TestAGuestComesAndGoesWithItsDefinition(t *testing.T) {
	client, told := metadataClient(t), watch.NewFake()
	client.PrependWatchReactor("customresourcedefinitions", func(clienttesting.Action) (bool, watch.Interface, error) { return true, told, nil })
	synced, names := visit(t, client, http.StatusOK, onePolicy)
	hear(t, synced, "Synced without a definition")
	told.Add(definition())
	if name := hear(t, names, "the policy"); name != "+cnp/guard" {
		t.Fatalf("heard %s, want the policy", name)
	}
	told.Delete(definition())
	if name := hear(t, names, "the policy's end"); name != "-cnp/guard" {
		t.Fatalf("heard %s, want the policy's end", name)
	}
}
