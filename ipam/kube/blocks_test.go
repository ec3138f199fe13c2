package kube

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/ipam"
	"github.com/koratnet/korat/ipam/assign"
	"github.com/koratnet/korat/ipam/block"
)

// server is a small API server that keeps Blocks with versions and
// preconditions, as the real one does.
type server struct {
	mu      sync.Mutex // guards all below
	blocks  map[string]*koratv1.Block
	version int
	calls   []string
	between func(*koratv1.Block) // somebody else's write, once, before the next one is carried out
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, r.Method)
	path := strings.Split(strings.TrimPrefix(r.URL.Path, "/apis/korat.dev/v1/blocks"), "/")
	name := ""
	if len(path) > 1 {
		name = path[1]
	}
	there := s.blocks[name]
	if r.Method != http.MethodGet && there != nil && s.between != nil {
		s.between(there)
		s.between = nil
		s.stamp(there)
	}
	var in koratv1.Block
	var del metav1.DeleteOptions
	switch r.Method {
	case http.MethodGet:
	case http.MethodDelete:
		_ = json.NewDecoder(r.Body).Decode(&del)
	default:
		_ = json.NewDecoder(r.Body).Decode(&in)
	}
	switch {
	case r.Method == http.MethodPost && s.blocks[in.Name] != nil:
		s.refuse(w, http.StatusConflict, metav1.StatusReasonAlreadyExists)
	case r.Method == http.MethodPost:
		in.UID = "uid"
		s.stamp(&in)
		s.blocks[in.Name] = &in
		s.send(w, &in)
	case there == nil:
		s.refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound)
	case r.Method == http.MethodPut && in.ResourceVersion != there.ResourceVersion,
		r.Method == http.MethodDelete && (del.Preconditions == nil || *del.Preconditions.UID != there.UID || *del.Preconditions.ResourceVersion != there.ResourceVersion):
		s.refuse(w, http.StatusConflict, metav1.StatusReasonConflict)
	case r.Method == http.MethodPut && len(path) > 2:
		there.Status = in.Status
		s.stamp(there)
		s.send(w, there)
	case r.Method == http.MethodPut:
		there.Spec = in.Spec
		s.stamp(there)
		s.send(w, there)
	case r.Method == http.MethodDelete:
		delete(s.blocks, name)
		s.send(w, &metav1.Status{Status: metav1.StatusSuccess})
	default:
		s.send(w, there)
	}
}

func (s *server) stamp(b *koratv1.Block) {
	s.version++
	b.ResourceVersion = fmt.Sprint(s.version)
}

func (s *server) send(w http.ResponseWriter, o runtime.Object) {
	if b, ok := o.(*koratv1.Block); ok {
		b.APIVersion, b.Kind = "korat.dev/v1", "Block"
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(o)
}

func (s *server) refuse(w http.ResponseWriter, code int, reason metav1.StatusReason) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(&metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure, Code: int32(code), Reason: reason,
	})
}

func start(t *testing.T) (*server, *Blocks) {
	t.Helper()
	s := &server{blocks: map[string]*koratv1.Block{}}
	h := httptest.NewServer(s)
	t.Cleanup(h.Close)
	scheme := runtime.NewScheme()
	if err := koratv1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	metav1.AddToGroupVersion(scheme, metav1.SchemeGroupVersion)
	client, err := rest.RESTClientFor(&rest.Config{Host: h.URL, APIPath: "/apis", QPS: -1, ContentConfig: rest.ContentConfig{
		GroupVersion: &koratv1.GroupVersion, NegotiatedSerializer: serializer.NewCodecFactory(scheme).WithoutConversion(), ContentType: runtime.ContentTypeJSON,
	}})
	if err != nil {
		t.Fatal(err)
	}
	return s, NewBlocks(client)
}

var (
	cidr = netip.MustParsePrefix("10.0.0.0/26")
	name = koratv1.BlockName(cidr)
	a    = ipam.Owner{Node: "a", UID: "ua", Journal: "ja"}
	b    = ipam.Owner{Node: "b", UID: "ub", Journal: "jb"}
)

func of(o ipam.Owner) ipam.Block { return ipam.Block{CIDR: cidr, Pool: "p", Owner: o} }

// Item 58: nothing is deleted or taken over that changed since it was read.
func TestItem58NothingIsDeletedThatChangedMeanwhile(t *testing.T) {
	s, k := start(t)
	ctx := t.Context()
	if err := k.Claim(ctx, of(a)); err != nil {
		t.Fatal(err)
	}
	if err := k.Claim(ctx, of(a)); err != nil {
		t.Errorf("a claim of which the reply was lost: %v", err)
	}
	if err := k.Claim(ctx, of(b)); !errors.Is(err, ipam.ErrConflict) {
		t.Errorf("a claim of what another has: %v", err)
	}
	s.between = func(x *koratv1.Block) { x.Spec.Node, x.Spec.NodeUID, x.Spec.JournalID = b.Node, b.UID, b.Journal }
	if err := k.Release(ctx, of(a)); !apierrors.IsConflict(err) {
		t.Errorf("a block that was taken over while it was released: %v", err)
	}
	if s.blocks[name] == nil {
		t.Fatal("the other's block is deleted")
	}
	if err := k.Release(ctx, of(a)); err != nil || s.blocks[name] == nil {
		t.Errorf("again, when it is the other's: %v", err)
	}
	s.between = func(x *koratv1.Block) { x.Spec.JournalID = "third" }
	if err := k.TakeOver(ctx, of(a), b); !errors.Is(err, ipam.ErrConflict) {
		t.Errorf("of two that take over one wins: %v", err)
	}
	third := b
	third.Journal = "third"
	if err := k.TakeOver(ctx, of(b), third); err != nil || s.blocks[name].Spec.JournalID != b.Journal {
		t.Errorf("%v, %+v", err, s.blocks[name].Spec)
	}
	if err := k.Release(ctx, of(b)); err != nil || s.blocks[name] != nil {
		t.Errorf("released: %v", err)
	}
	if err := k.Release(ctx, of(b)); err != nil {
		t.Errorf("released again: %v", err)
	}
}

func TestRequestsAreKeptBesideEachOther(t *testing.T) {
	s, k := start(t)
	ctx := t.Context()
	if err := k.Claim(ctx, of(a)); err != nil {
		t.Fatal(err)
	}
	want := ipam.Want{By: b, CIDR: netip.MustParsePrefix("10.0.0.7/32"), Pod: "ns/p", Number: 1}
	other := ipam.Want{By: ipam.Owner{Node: "c", UID: "uc", Journal: "jc"}, Bits: 28, Number: 9}
	s.between = func(x *koratv1.Block) { x.Spec.Requests = append(x.Spec.Requests, request(other)) }
	if err := k.Ask(ctx, of(a), want); err != nil {
		t.Fatal(err)
	}
	if got := Standing(s.blocks[name]).Wants; len(got) != 2 || got[0] != other || got[1] != want {
		t.Fatalf("got %+v", got)
	}
	refused := other
	refused.Refused = "it has no free address"
	if err := k.Answer(ctx, of(a), []ipam.Want{want}, []ipam.Want{refused}); err != nil {
		t.Fatal(err)
	}
	if got := Standing(s.blocks[name]).Wants; len(got) != 1 || got[0] != refused {
		t.Fatalf("got %+v", got)
	}
	if err := k.Ask(ctx, of(b), want); !errors.Is(err, ipam.ErrConflict) {
		t.Errorf("asked of one who does not own it: %v", err)
	}
	for i := range maxRequests {
		o := ipam.Owner{Node: fmt.Sprint("n", i), UID: "u", Journal: "j"}
		if err := k.Ask(ctx, of(a), ipam.Want{By: o, Bits: 28, Number: 1}); err != nil && (!errors.Is(err, ipam.ErrTaken) || i < maxRequests-1) {
			t.Fatalf("request %d: %v", i, err)
		}
	}
}

func TestAStatusIsWrittenWhenItChangedAndNotElse(t *testing.T) {
	s, k := start(t)
	ctx := t.Context()
	if err := k.Claim(ctx, of(a)); err != nil {
		t.Fatal(err)
	}
	u := assign.Usage{CIDR: cidr, Held: map[netip.Addr]ipam.Handle{cidr.Addr(): {Namespace: "ns", Pod: "p"}}, Counts: block.Counts{Held: 1, Free: 63}}
	for range 3 {
		s.calls = nil
		if err := k.Publish(ctx, of(a), u); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.blocks[name].Status; len(s.calls) != 0 || got.Allocated != 1 || got.Free != 63 || got.Addresses[0].Pod != "ns/p" {
		t.Errorf("%d calls for what is known, status %+v", len(s.calls), got)
	}
	s.blocks[name].Spec.JournalID = "another"
	u.Counts.Held, u.Free = 2, 62
	if err := k.Publish(ctx, of(a), u); !errors.Is(err, ipam.ErrConflict) || s.blocks[name].Status.Allocated != 1 {
		t.Errorf("the status of what another owns: %v", err)
	}
}
