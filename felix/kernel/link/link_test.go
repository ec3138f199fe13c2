package link_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/kernel/link"
)

func open(t testing.TB, n *kerneltest.Namespace) (r *link.Reconciler) {
	t.Helper()
	n.Do(func() {
		var err error
		if r, err = link.New(); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(r.Close)
	if err := r.Resync(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

func mustApply(t testing.TB, r *link.Reconciler, d desired.Delta) {
	t.Helper()
	r.Want(d)
	if err := r.Apply(t.Context()); err != nil {
		t.Fatalf("Apply: %v", err)
	}
}

func endpoint(iface string, addrs ...string) desired.Delta {
	ep := &desired.Endpoint{Interface: iface}
	for _, a := range addrs {
		ep.Addrs = append(ep.Addrs, netip.MustParseAddr(a))
	}
	return desired.Delta{Endpoints: map[string]*desired.Endpoint{iface: ep}}
}

func isSetUp(n *kerneltest.Namespace, iface string) bool {
	out := n.Run("ip", "addr", "show", "dev", iface)
	return strings.Contains(out, ",UP") && strings.Contains(out, "link/ether ee:ee:ee:ee:ee:ee") &&
		strings.Contains(out, "inet6 fe80::ecee:eeff:feee:eeee/64 scope link")
}

func TestAnInterfaceIsSetUp(t *testing.T) {
	n := kerneltest.New(t)
	r := open(t, n)
	kerneltest.Veth(n, "kor1", kerneltest.New(t), "eth0")
	n.Up("kor1") // so that the kernel derives an address from the wrong MAC
	foreign := n.Run("ip", "addr", "show", "dev", "lo")
	mustApply(t, r, endpoint("kor1", "10.0.0.1", "fd00::1"))
	if !isSetUp(n, "kor1") {
		t.Error(n.Run("ip", "addr", "show", "dev", "kor1"))
	}
	if len(r.Closed()) > 0 {
		t.Errorf("closed: %v", r.Closed())
	}
	if after := n.Run("ip", "addr", "show", "dev", "lo"); after != foreign {
		t.Errorf("lo changed: %s", after)
	}
}

func TestARestartWritesNothing(t *testing.T) {
	n := kerneltest.New(t)
	kerneltest.Pod(n, "kor1")
	mustApply(t, open(t, n), endpoint("kor1", "10.0.0.1", "fd00::1"))
	m := n.Monitor()
	m.Drain()
	mustApply(t, open(t, n), endpoint("kor1", "10.0.0.1", "fd00::1"))
	if changes := m.Changes(); len(changes) > 0 {
		t.Errorf("the kernel was changed: %v", changes)
	}
}

func TestAMissingInterfaceIsClosedUntilItAppears(t *testing.T) {
	n := kerneltest.New(t)
	r := open(t, n)
	mustApply(t, r, endpoint("kor1", "10.0.0.1", "fd00::1")) // not our failure
	if err := r.Closed()["kor1"]; err == nil || !strings.Contains(err.Error(), "kor1: Link not found") {
		t.Errorf("closed: %v", err)
	}
	for range 2 {
		kerneltest.Pod(n, "kor1")
		r.LinkChanged("kor1")
		mustApply(t, r, desired.Delta{})
		if !isSetUp(n, "kor1") || len(r.Closed()) > 0 {
			t.Errorf("closed: %v\n%s", r.Closed(), n.Run("ip", "addr", "show", "dev", "kor1"))
		}
		n.Remove("kor1")
		r.LinkChanged("kor1")
		mustApply(t, r, desired.Delta{})
		if r.Closed()["kor1"] == nil {
			t.Error("not closed though deleted")
		}
	}
	mustApply(t, r, desired.Delta{Endpoints: map[string]*desired.Endpoint{"kor1": nil}})
	if len(r.Closed()) > 0 {
		t.Errorf("closed though not wanted: %v", r.Closed())
	}
}

func TestItem5AForeignEditIsUndone(t *testing.T) {
	n := kerneltest.New(t)
	kerneltest.Pod(n, "kor1")
	r := open(t, n)
	mustApply(t, r, endpoint("kor1", "10.0.0.1", "fd00::1"))
	for _, edit := range []string{
		"link set dev kor1 down", "link set dev kor1 address 02:00:00:00:00:01", "addr flush dev kor1",
	} {
		n.Run("ip", strings.Fields(edit)...)
		r.LinkChanged("kor1")
		mustApply(t, r, desired.Delta{})
		if !isSetUp(n, "kor1") {
			t.Errorf("after ip %s:\n%s", edit, n.Run("ip", "addr", "show", "dev", "kor1"))
		}
	}
}
