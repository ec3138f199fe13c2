package route_test

import (
	"strings"
	"testing"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
)

func TestALinkThatFlapsGetsItsRoutesBack(t *testing.T) {
	for _, dev := range []string{"kor1", "eth0"} {
		t.Run(dev, func(t *testing.T) {
			n := node(t)
			r := begin(t, n)
			mustApply(t, r, routes(t, all...))
			n.Down(dev)
			n.Up(dev)
			if dev == "eth0" { // the kernel takes the IPv6 addresses along
				n.Run("ip", "addr", "add", "2001:db8:0::1/64", "dev", dev, "nodad")
			}
			r.LinkChanged(dev)
			mustApply(t, r, desired.Delta{})
			compare(t, n, allInKernel...)
		})
	}
}

func TestALinkThatIsMadeAnewGetsItsRoutesBack(t *testing.T) {
	n := node(t)
	r := begin(t, n)
	mustApply(t, r, routes(t, all...))
	n.Remove("kor1")
	r.LinkChanged("kor1")
	err := r.Apply(t.Context())
	if err == nil || !strings.Contains(err.Error(), "interface kor1") {
		t.Errorf("Apply without the interface: %v", err)
	}
	if closed := r.Closed(); closed["kor1"] == nil {
		t.Errorf("closed: %v", closed)
	}
	kerneltest.Pod(n, "kor1")
	r.LinkChanged("kor1")
	mustApply(t, r, desired.Delta{})
	compare(t, n, allInKernel...)
}

func TestAnInterfaceMadeAnewUnnoticedIsFound(t *testing.T) {
	n := node(t)
	r := begin(t, n)
	n.Remove("kor1")
	kerneltest.Pod(n, "kor1") // has another index now
	r.Want(routes(t, "10.0.0.1/32 dev kor1"))
	if err := r.Apply(t.Context()); err == nil {
		t.Fatal("Apply with an outdated index succeeded")
	}
	mustApply(t, r, desired.Delta{})
	compare(t, n, "10.0.0.1/32 dev kor1 scope link")
}

func TestANewGenerationIsLookedAtBeforeAnyNotification(t *testing.T) {
	n := node(t)
	r := begin(t, n)
	d := routes(t, "10.0.0.1/32 dev kor1", "fd00::1/128 dev kor1")
	d.Endpoints = map[string]*desired.Endpoint{"kor1": {Interface: "kor1", Generation: 1}}
	mustApply(t, r, d)
	n.Remove("kor1")
	kerneltest.Pod(n, "kor1")
	d.Endpoints = map[string]*desired.Endpoint{"kor1": {Interface: "kor1", Generation: 2}}
	mustApply(t, r, d)
	compare(t, n, "10.0.0.1/32 dev kor1 scope link", "fd00::1/128 dev kor1 metric 1024")
}

func TestPolicyRoutingHidesNothing(t *testing.T) {
	n := node(t)
	r := begin(t, n)
	mustApply(t, r, routes(t, "10.0.0.1/32 dev kor1", "fd00::1/128 dev kor1"))
	for _, v := range []string{"-4", "-6"} {
		n.Run("ip", v, "rule", "add", "pref", "100", "lookup", "100")
		n.Run("ip", v, "route", "add", "default", "dev", "kor2", "table", "100")
	}
	m := n.Monitor()
	m.Drain()
	r.LinkChanged("kor1")
	mustApply(t, r, desired.Delta{})
	if changes := m.Changes(); len(changes) > 0 {
		t.Errorf("looking changed the kernel: %v", changes)
	}
	n.Run("ip", "route", "del", "10.0.0.1", "table", "main")
	r.LinkChanged("kor1")
	mustApply(t, r, desired.Delta{})
	compare(t, n, "10.0.0.1/32 dev kor1 scope link", "fd00::1/128 dev kor1 metric 1024")
}
