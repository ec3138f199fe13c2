package controller

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/felix/controller"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
)

// run runs the controller as the user that charts/korat/rbac.yaml names, and
// returns a function that ends it and the address of its probes.
func run(t *testing.T, pools ...netip.Prefix) (stop func(), address string) {
	t.Helper()
	return runWith(t, controller.Config{DefaultPools: pools})
}

// runWith runs it as c says beside.
func runWith(t *testing.T, c controller.Config) (stop func(), address string) {
	t.Helper()
	port, err := kerneltest.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	c.REST, c.LeaderElect, c.HTTPAddress = identity(t, "korat:controller"), true, fmt.Sprintf("127.0.0.1:%d", port)
	c.Version, c.Log = "test", slog.New(slog.NewTextHandler(t.Output(), nil))
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- controller.Run(ctx, c) }()
	stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		ended <- nil
	}
	t.Cleanup(stop)
	within(t, func(context.Context) error {
		text, err := get(c.HTTPAddress, "/readyz")
		if err == nil && text != "ok: leader\n" {
			err = fmt.Errorf("/readyz says %q", text)
		}
		return err
	})
	return stop, c.HTTPAddress
}

func get(address, path string) (string, error) {
	r, err := http.Get("http://" + address + path)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	return string(text), err
}

// create creates objects and deletes them at the end of the test.
func create(t *testing.T, objects ...client.Object) {
	t.Helper()
	for _, o := range objects {
		if err := admin.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { remove(t, o) })
	}
}

func remove(t *testing.T, o client.Object) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	err := admin.Delete(ctx, o)
	if _, held := o.(*koratv1.IPPool); held && err == nil { // the controller may not run any more that lets it go
		err = admin.Patch(ctx, o.DeepCopyObject().(client.Object), client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`)))
	}
	if client.IgnoreNotFound(err) != nil {
		t.Error(err)
	}
}

// says waits until the object's condition of this type begins with text, as
// "STATUS REASON: MESSAGE".
func says(t *testing.T, o client.Object, conditions *[]metav1.Condition, kind, text string) {
	t.Helper()
	within(t, func(ctx context.Context) error {
		if err := admin.Get(ctx, client.ObjectKeyFromObject(o), o); err != nil {
			return err
		}
		c := meta.FindStatusCondition(*conditions, kind)
		if c == nil {
			return fmt.Errorf("%s has no condition %s", o.GetName(), kind)
		}
		if got := fmt.Sprintf("%s %s: %s", c.Status, c.Reason, c.Message); !strings.HasPrefix(got, text) {
			return fmt.Errorf("%s is %s %s, want %s", o.GetName(), kind, got, text)
		}
		return nil
	})
}

// events waits for n Events about o and returns their texts, "REASON: MESSAGE".
func events(t *testing.T, o client.Object, n int) (texts []string) {
	t.Helper()
	within(t, func(ctx context.Context) error {
		var list corev1.EventList
		if err := admin.List(ctx, &list, client.MatchingFields{"involvedObject.uid": string(o.GetUID())}); err != nil {
			return err
		}
		texts = nil
		for _, e := range list.Items {
			texts = append(texts, e.Reason+": "+e.Message)
		}
		if len(texts) != n {
			return fmt.Errorf("%s has %d events, want %d: %q", o.GetName(), len(texts), n, texts)
		}
		return nil
	})
	return texts
}

func ipPool(name, cidr string) *koratv1.IPPool {
	return &koratv1.IPPool{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: koratv1.IPPoolSpec{CIDR: koratv1.CIDR(cidr), BlockSize: 28}}
}

func ipBlock(name, cidr, pool string) *koratv1.Block {
	return &koratv1.Block{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: koratv1.BlockSpec{
		CIDR: koratv1.CIDR(cidr), Pool: pool, Node: "node-a1", NodeUID: "u", JournalID: "j",
	}}
}

func TestStatusOfPoolsAndBlocks(t *testing.T) {
	run(t)
	first := ipPool("z-first", "10.1.0.0/27")
	create(t, first)
	says(t, first, &first.Status.Conditions, koratv1.ConditionReady, "True Serving")

	broken := ipPool("broken", "10.2.0.0/16")
	broken.Spec.NodeSelector = "rack = 'a'"
	create(t, broken)
	says(t, broken, &broken.Status.Conditions, koratv1.ConditionReady, `False InvalidSelector: spec.nodeSelector: "rack = 'a'": column 6`)
	if got := events(t, broken, 1)[0]; !strings.HasPrefix(got, `InvalidSelector: spec.nodeSelector: "rack = 'a'"`) {
		t.Error(got)
	}

	// Creation times count in seconds: make the second pool surely the younger one.
	within(t, func(ctx context.Context) error { return aSecondAfter(ctx, first) })
	second := ipPool("a-second", "10.1.0.0/16")
	create(t, second)
	says(t, second, &second.Status.Conditions, koratv1.ConditionReady, `False Overlap: spec.cidr: "10.1.0.0/16" overlaps 10.1.0.0/27 of IPPool z-first`)

	one, two := ipBlock("10-1-0-0-28", "10.1.0.0/28", "z-first"), ipBlock("10-1-0-16-28", "10.1.0.16/28", "z-first")
	lost, alias := ipBlock("10-9-0-0-28", "10.9.0.0/28", "z-first"), ipBlock("alias", "10.1.0.0/28", "z-first")
	create(t, one, two, lost, alias)
	two.Status.Allocated, two.Status.Addresses = 1, []koratv1.BlockAddress{{Address: "10.1.0.17", Pod: "shop/cart"}}
	within(t, func(ctx context.Context) error { // as the owner does, between the controller's writes
		o := two.DeepCopy()
		if err := admin.Get(ctx, client.ObjectKeyFromObject(o), o); err != nil {
			return err
		}
		o.Status.Allocated, o.Status.Addresses = two.Status.Allocated, two.Status.Addresses
		return admin.Status().Update(ctx, o)
	})
	says(t, one, &one.Status.Conditions, koratv1.ConditionAccepted, "True Accepted")
	says(t, two, &two.Status.Conditions, koratv1.ConditionAccepted, "True Accepted")
	if two.Status.Allocated != 1 || len(two.Status.Addresses) != 1 {
		t.Errorf("the controller changed what the owner wrote: %+v", two.Status)
	}
	says(t, lost, &lost.Status.Conditions, koratv1.ConditionAccepted, `False OutsidePool: spec.cidr: "10.9.0.0/28"`)
	says(t, alias, &alias.Status.Conditions, koratv1.ConditionAccepted, `False NameMismatch: metadata.name: "alias": expected "10-1-0-0-28"`)
	says(t, first, &first.Status.Conditions, koratv1.ConditionReady, "False Exhausted: all 2 blocks are owned")
	if s := first.Status; s.Blocks != 2 || s.Used != "1/32" || s.Capacity != 32 || s.BlockSize != 28 {
		t.Errorf("status of the pool: %+v", s)
	}

	remove(t, one)
	says(t, first, &first.Status.Conditions, koratv1.ConditionReady, "True Serving")
	if err := admin.Delete(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	says(t, first, &first.Status.Conditions, koratv1.ConditionReady, "False Deleting: no address is given out any more; the pool is gone when the pods are that hold 1 addresses, in the blocks 10.1.0.16/28")
	says(t, second, &second.Status.Conditions, koratv1.ConditionReady, "False Overlap")
	remove(t, two)
	within(t, func(ctx context.Context) error {
		if err := admin.Get(ctx, client.ObjectKeyFromObject(first), first); !apierrors.IsNotFound(err) {
			return fmt.Errorf("the pool is still there: %v", err)
		}
		return nil
	})
	says(t, second, &second.Status.Conditions, koratv1.ConditionReady, "True Serving")
	says(t, lost, &lost.Status.Conditions, koratv1.ConditionAccepted, `False OutsidePool: spec.pool: "z-first"`)
}

// aSecondAfter succeeds when the API server's clock shows a later second than
// that of o's creation.
func aSecondAfter(ctx context.Context, o client.Object) error {
	probe := &koratv1.NodeNetwork{ObjectMeta: metav1.ObjectMeta{Name: "clock"}}
	if err := admin.Create(ctx, probe, client.DryRunAll); err != nil {
		return err
	}
	if created := o.GetCreationTimestamp(); !created.Before(&probe.CreationTimestamp) {
		return errors.New("the clock shows the same second")
	}
	return nil
}

func TestStatusOfPeers(t *testing.T) {
	run(t)
	for _, name := range []string{"node-a1", "node-a2", "node-b1"} {
		rack := strings.TrimSuffix(strings.TrimPrefix(name, "node-"), name[len(name)-1:])
		create(t, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"rack": rack}}},
			&koratv1.NodeNetwork{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	tor := &koratv1.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "tor"}, Spec: koratv1.BGPPeerSpec{Address: "10.1.0.1", ASNumber: 65001, NodeSelector: "rack == 'a'"}}
	broken := &koratv1.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "broken"}, Spec: koratv1.BGPPeerSpec{Address: "10.1.0.2", ASNumber: 65001, NodeSelector: "rack =="}}
	twin := &koratv1.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "twin"}, Spec: koratv1.BGPPeerSpec{Address: "10.1.0.1", ASNumber: 65001}}
	nobody := &koratv1.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "nobody"}, Spec: koratv1.BGPPeerSpec{Address: "10.1.0.3", ASNumber: 65001, NodeSelector: "rack == 'x'"}}
	create(t, tor, broken, twin, nobody)
	says(t, tor, &tor.Status.Conditions, koratv1.ConditionAccepted, "True Accepted")
	says(t, tor, &tor.Status.Conditions, koratv1.ConditionEstablished, "False SessionsDown: 2 nodes have no session, among them node node-a1")
	says(t, broken, &broken.Status.Conditions, koratv1.ConditionAccepted, `False InvalidSelector: spec.nodeSelector: "rack ==": column 8`)
	says(t, twin, &twin.Status.Conditions, koratv1.ConditionAccepted, `False Conflict: spec.address: "10.1.0.1": BGPPeer tor asks node node-a1`)
	says(t, nobody, &nobody.Status.Conditions, koratv1.ConditionEstablished, "False NoSessions")

	report(t, "node-a1", koratv1.SessionStatus{Peer: "bgppeer/tor", Address: "10.1.0.1", State: koratv1.SessionEstablished})
	report(t, "node-a2", koratv1.SessionStatus{Peer: "bgppeer/tor", Address: "10.1.0.1", State: koratv1.SessionActive, LastError: "connection refused"})
	says(t, tor, &tor.Status.Conditions, koratv1.ConditionEstablished, "False SessionsDown: node node-a2: 10.1.0.1 is Active: connection refused")
	if tor.Status.Sessions != "1/2" || tor.Status.Established != 1 || tor.Status.Desired != 2 {
		t.Errorf("status of the peer: %+v", tor.Status)
	}
	report(t, "node-a2", koratv1.SessionStatus{Peer: "bgppeer/tor", Address: "10.1.0.1", State: koratv1.SessionEstablished})
	says(t, tor, &tor.Status.Conditions, koratv1.ConditionEstablished, "True AllEstablished")

	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-b1"}}
	if err := admin.Patch(t.Context(), node, client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"labels":{"rack":"a"}}}`))); err != nil {
		t.Fatal(err)
	}
	says(t, tor, &tor.Status.Conditions, koratv1.ConditionEstablished, "False SessionsDown: node node-b1")

	cfg := &koratv1.BGPConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	create(t, cfg)
	says(t, cfg, &cfg.Status.Conditions, koratv1.ConditionAccepted, "True Accepted")
}

// report writes the status of a NodeNetwork as the agent of a node does, with an
// agent's rights.
func report(t *testing.T, name string, s koratv1.SessionStatus) {
	t.Helper()
	agent := agentClient(t)
	within(t, func(ctx context.Context) error {
		n := &koratv1.NodeNetwork{}
		if err := agent.Get(ctx, client.ObjectKey{Name: name}, n); err != nil {
			return err
		}
		n.Status.Sessions = []koratv1.SessionStatus{s}
		return agent.Status().Update(ctx, n)
	})
}

func TestTheFirstPoolsOfACluster(t *testing.T) {
	v4, v6 := netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:10:244::/48")
	stop, address := run(t, v4, v6)
	four, six := &koratv1.IPPool{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, &koratv1.IPPool{ObjectMeta: metav1.ObjectMeta{Name: "default-v6"}}
	t.Cleanup(func() { remove(t, four); remove(t, six) })
	says(t, four, &four.Status.Conditions, koratv1.ConditionReady, "True Serving")
	says(t, six, &six.Status.Conditions, koratv1.ConditionReady, "True Serving")
	if four.Spec.CIDR != "10.244.0.0/16" || four.Status.Used != "0/65536" || six.Status.Used != "0/2^80" {
		t.Errorf("got %+v and %+v", four, six)
	}
	metrics, err := get(address, "/metrics")
	if err != nil || !strings.Contains(metrics, `controller_runtime_reconcile_total{controller="ippool",result="success"}`) {
		t.Errorf("metrics: %v\n%s", err, metrics)
	}

	// An operator who deletes one has decided.
	stop()
	remove(t, six)
	run(t, v4, v6)
	extra := ipPool("extra", "10.9.0.0/16")
	create(t, extra)
	says(t, extra, &extra.Status.Conditions, koratv1.ConditionReady, "True Serving")
	if err := admin.Get(t.Context(), client.ObjectKeyFromObject(six), six); client.IgnoreNotFound(err) != nil || err == nil {
		t.Errorf("default-v6 came back: %v", err)
	}
}
