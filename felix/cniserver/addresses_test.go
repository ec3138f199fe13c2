package cniserver_test

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/koratnet/korat/felix/annotation"
	"github.com/koratnet/korat/felix/cniserver"
	"github.com/koratnet/korat/felix/cniserver/wire"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/ipam"
)

// quietWorld is a cluster of a history in which nothing fails, and its first node,
// which has heard everything.
func quietWorld(t *testing.T) (*world, *machine) {
	dir, err := os.MkdirTemp("/dev/shm", "korat-addresses")
	if err != nil {
		t.Fatal(err)
	}
	w := newHistory(t, 0, dir)
	w.calm, w.seen = true, map[string]int{}
	t.Cleanup(func() {
		for _, m := range w.all {
			m.kill()
		}
		os.RemoveAll(dir)
	})
	m := w.all[0]
	if err := m.upkeep(t.Context()); err != nil {
		t.Fatal(err)
	}
	return w, m
}

// sandbox makes a sandbox of a pod on m.
func (m *machine) sandbox(pod, id string) *box {
	b := &box{m: m, pod: pod, id: id}
	m.netns[b.netns()] = true
	return b
}

func (b *box) do(t *testing.T, c wire.Command) cniserver.Reply {
	t.Helper()
	return b.m.server.Handle(t.Context(), b.request(c))
}

// must carries out what must succeed, and returns the addresses of an ADD.
func (b *box) must(t *testing.T, c wire.Command) []netip.Addr {
	t.Helper()
	r := b.do(t, c)
	if r.Error != nil {
		t.Fatalf("%s of %s: %v", c, b.pod, r.Error)
	}
	if r.Added == nil {
		return nil
	}
	return r.Added.Addrs
}

func (m *machine) heldNow() (n int) {
	for _, u := range m.alloc.Usage() {
		n += u.Counts.Held
	}
	return n
}

// Item 13: a failed ADD gives its addresses back, unless the attachment existed
// before; with two families there are two addresses or none.
func TestItem13AFailedADDGivesBackWhatItTookAndNoMore(t *testing.T) {
	_, m := quietWorld(t)
	first, second := m.sandbox("web", "c1"), m.sandbox("db", "c2")
	live := first.must(t, wire.Add)
	m.refuse = errors.New("rule 3 is refused")
	if r := first.do(t, wire.Add); r.Error == nil {
		t.Fatal("ADD succeeded although the kernel refuses")
	}
	if r := second.do(t, wire.Add); r.Error == nil {
		t.Fatal("ADD succeeded although the kernel refuses")
	}
	m.refuse = nil
	if n := m.heldNow(); n != 1 || len(m.books.State().Attachments) != 1 {
		t.Errorf("%d addresses are held, want that of the pod that was there", n)
	}
	if again := first.must(t, wire.Add); again[0] != live[0] {
		t.Errorf("the pod that was there has %v now, had %v", again, live)
	}
	six := &ipam.Pool{Name: "six", CIDR: netip.MustParsePrefix("fd00::/127"), BlockSize: 127}
	m.alloc.SetPool("six", six)
	for i, pod := range []string{"a", "b"} {
		if got := m.sandbox(pod, pod).must(t, wire.Add); len(got) != 2 || !got[0].Is4() || !got[1].Is6() {
			t.Fatalf("pod %d has %v", i, got)
		}
	}
	before := m.heldNow()
	if r := m.sandbox("c", "c").do(t, wire.Add); r.Error == nil || !strings.Contains(r.Error.Details, "exhausted") {
		t.Fatalf("half of two families: %+v", r)
	}
	if n := m.heldNow(); n != before {
		t.Errorf("%d addresses are held, want %d: the other family's is leaked", n, before)
	}
}

// Item 14: DEL succeeds whatever is missing, and frees the address.
func TestItem14DELSucceedsWhateverIsMissing(t *testing.T) {
	for name, lose := range map[string]func(*machine, *box){
		"nothing":              func(*machine, *box) {},
		"the namespace":        func(m *machine, b *box) { m.destroy(b.netns()) },
		"the veth":             func(m *machine, b *box) { clear(m.veths); clear(m.ends) },
		"the block in the API": func(m *machine, _ *box) { clear(m.w.blocks); m.hear() },
		"the pool":             func(m *machine, _ *box) { m.alloc.SetPool("p", nil); m.alloc.SetPool("q", nil) },
		"everything, by an earlier DEL": func(m *machine, b *box) {
			b.do(m.w.t, wire.Del)
			m.destroy(b.netns())
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, m := quietWorld(t)
			m.w.t = t
			b := m.sandbox("web", "c1")
			b.must(t, wire.Add)
			lose(m, b)
			b.must(t, wire.Del)
			r := b.request(wire.Del)
			r.Netns = "" // which a runtime may not know any more
			if reply := m.server.Handle(t.Context(), r); reply.Error != nil {
				t.Errorf("again, without a namespace: %v", reply.Error)
			}
			if n := m.heldNow(); n != 0 || len(m.books.State().Attachments) != 0 {
				t.Errorf("%d addresses are leaked", n)
			}
		})
	}
	_, m := quietWorld(t)
	m.sandbox("never", "seen").must(t, wire.Del)
}

// Item 15: an address is found by its container's ID, and by its pod where no
// journal knows the ID any more; the ID of another container frees nothing.
func TestItem15DELFindsTheAddressByContainerAndByPod(t *testing.T) {
	w, m := quietWorld(t)
	b := m.sandbox("web", "c1")
	addrs := b.must(t, wire.Add)
	w.claims[m.name+"/web"] = addrs
	m.sandbox("web", "of another generation").must(t, wire.Del)
	if m.heldNow() != 1 {
		t.Fatal("the DEL of another container freed the address")
	}
	m.lose()
	m.start()
	for range 3 {
		w.now = w.now.Add(10 * time.Second)
		if err := m.upkeep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if m.heldNow() != 1 {
		t.Fatalf("%d addresses are held after the journal was lost", m.heldNow())
	}
	delete(w.claims, m.name+"/web")
	b.must(t, wire.Del)
	if n := m.heldNow(); n != 0 {
		t.Errorf("%d addresses are leaked after the journal was lost", n)
	}
}

// Item 59: nothing is freed by one source, nor at one look: the kernel has to lack
// the interface twice, and for a pod of which only the API told, the API the pod.
func TestItem59AnAddressIsFreedAtTheSecondLookOnly(t *testing.T) {
	w, m := quietWorld(t)
	b := m.sandbox("web", "c1")
	b.must(t, wire.Add)
	look := func(want int) {
		t.Helper()
		if err := m.server.Collect(w.claimed); err != nil {
			t.Fatal(err)
		}
		if n := m.heldNow(); n != want {
			t.Fatalf("%d addresses are held, want %d", n, want)
		}
	}
	look(1)
	look(1) // it runs
	netns := b.netns()
	saved := m.veths[desired.HostInterface("ns", "web")]
	delete(m.veths, desired.HostInterface("ns", "web"))
	look(1)
	m.veths[desired.HostInterface("ns", "web")], m.ends[desired.HostInterface("ns", "web")] = saved, netns // it was only late
	look(1)
	m.destroy(netns)
	look(1)
	look(0)
}

func TestItem11TwoDoNotBoundTheSamePod(t *testing.T) {
	w, m := quietWorld(t)
	w.annotations[m.name+"/slow"] = map[string]string{annotation.IngressBandwidth: "10M", annotation.EgressBandwidth: "500k"}
	slow := m.sandbox("slow", "slow")
	m.server.Chain = []string{"portmap", "bandwidth"}
	if r := slow.do(t, wire.Add); r.Error == nil || !strings.Contains(r.Error.Error(), "the plugin bandwidth, which is chained on this node") {
		t.Errorf("beside the plugin: %v", r.Error)
	}
	m.server.Chain = []string{"portmap"}
	slow.must(t, wire.Add)
	for _, at := range m.books.State().Attachments {
		if at.Ingress != 10_000_000 || at.Egress != 500_000 {
			t.Errorf("recorded %+v", at)
		}
	}
}

// TestItem8NothingLeadsToASecondPodWithTheAddressOfARunningOne: where a virtual
// machine moves while it runs, its new pod must not draw the traffic of the old one
// too early. Here it gets the address only when the old one has let go of it.
func TestItem8NothingLeadsToASecondPodWithTheAddressOfARunningOne(t *testing.T) {
	w, m := quietWorld(t)
	const vm = "10.0.0.17"
	for _, pod := range []string{"source", "target"} {
		w.annotations[m.name+"/"+pod] = map[string]string{annotation.IPAddresses: vm}
	}
	source, target := m.sandbox("source", "source"), m.sandbox("target", "target")
	source.must(t, wire.Add)
	if r := target.do(t, wire.Add); r.Error == nil || !strings.Contains(r.Error.Error(), "is held by pod ns/source") {
		t.Errorf("the target: %v", r.Error)
	}
	if _, there := m.veths[desired.HostInterface("ns", "target")]; there || m.heldNow() != 1 {
		t.Errorf("something leads to the target, and %d addresses are held", m.heldNow())
	}
	source.must(t, wire.Del)
	if got := target.must(t, wire.Add); got[0].String() != vm {
		t.Errorf("the target got %v, want %s", got, vm)
	}
}

func TestWhatPodsAskForInAnnotations(t *testing.T) {
	w, m := quietWorld(t)
	want := netip.MustParseAddr("10.0.0.17")
	w.annotations[m.name+"/asks"] = map[string]string{annotation.IPAddresses: want.String()}
	if got := m.sandbox("asks", "asks").must(t, wire.Add); got[0] != want {
		t.Errorf("got %v, want %s", got, want)
	}
	for name, c := range map[string]struct{ annotation, value, says string }{
		"address taken":   {annotation.IPAddresses, want.String(), "annotation korat.dev/ipAddresses: address not available: address 10.0.0.17 is held by pod ns/asks"},
		"bad value":       {annotation.IPAddresses, "10.0.0", `annotation korat.dev/ipAddresses of the pod is "10.0.0"`},
		"unknown pool":    {annotation.IPv4Pools, "none", `annotations korat.dev/ipv4Pools, korat.dev/ipv6Pools: no usable IP pool: there is no IPPool "none"`},
		"no such family":  {annotation.IPFamilies, "IPv6", "no pool for this pod"},
		"bad bandwidth":   {annotation.IngressBandwidth, "fast", "annotation korat.dev/ingressBandwidth of the pod"},
		"floating":        {annotation.FloatingAddresses, takenFloat.String(), "annotation korat.dev/floatingAddresses: 203.0.113.9 leads to pod ns/other"},
		"floating family": {annotation.FloatingAddresses, "2001:db8::9", "annotation korat.dev/floatingAddresses asks for 2001:db8::9, and the pod has no address of its family"},
		"outside of pool": {annotation.IPAddresses, "192.0.2.1", "annotation korat.dev/ipAddresses: address 192.0.2.1: no usable IP pool"},
	} {
		w.annotations[m.name+"/"+name] = map[string]string{c.annotation: c.value}
		r := m.sandbox(name, name).do(t, wire.Add)
		if r.Error == nil || !strings.Contains(r.Error.Error(), c.says) {
			t.Errorf("%s: got %v, want %s", name, r.Error, c.says)
		}
	}
	if n := m.heldNow(); n != 1 {
		t.Errorf("%d addresses are held, want that of the one that got it", n)
	}
	w.annotations[m.name+"/router"] = map[string]string{annotation.MAC: "02:00:5e:10:00:01", annotation.AllowedSources: "192.0.2.0/24"}
	m.sandbox("router", "router").must(t, wire.Add)
	for _, at := range m.books.State().Attachments {
		if at.Handle.Pod == "router" && (at.MAC != "02:00:5e:10:00:01" || len(at.Sources) != 1) {
			t.Errorf("recorded %+v", at)
		}
	}
}
