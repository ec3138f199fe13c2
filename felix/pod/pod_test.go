package pod

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/koratnet/korat/felix/cniserver/wire"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
)

var spec = Spec{
	Interface: "eth0", HostInterface: "kor0123456789a", MTU: 1400,
	Addrs: []netip.Addr{netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("fd00:9::1")},
}

// node is a namespace with a Host in it.
type node struct {
	*kerneltest.Namespace
	t    *testing.T
	host *Host
}

func newNode(t *testing.T) *node {
	n := &node{Namespace: kerneltest.New(t), t: t}
	n.Do(func() {
		var err error
		if n.host, err = NewHost(); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(n.host.Close)
	n.Run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
	n.Run("ip", "addr", "add", "192.0.2.1/32", "dev", "lo")
	n.Run("ip", "addr", "add", "2001:db8::1/128", "dev", "lo")
	return n
}

func (n *node) attach(s Spec) (mac string) {
	n.t.Helper()
	n.Do(func() {
		m, err := n.host.Attach(s)
		if err != nil {
			n.t.Fatal(err)
		}
		mac = m.String()
	})
	return mac
}

// route does the part of felix/kernel/route.
func (n *node) route() {
	for _, a := range spec.Addrs {
		n.Run("ip", "route", "add", netip.PrefixFrom(a, a.BitLen()).String(), "dev", spec.HostInterface)
	}
}

func (n *node) check(s Spec) (err error) {
	n.Do(func() { err = n.host.Check(s) })
	return err
}

func in(pod *kerneltest.Namespace) Spec {
	s := spec
	s.Netns = pod.Path()
	return s
}

func TestAnAttachedPodTalksToItsNodeInBothFamilies(t *testing.T) {
	n, pod := newNode(t), kerneltest.New(t)
	mac := n.attach(in(pod))
	n.Run("ip", "route", "add", "10.9.0.1/32", "dev", spec.HostInterface)
	n.Run("ip", "route", "add", "fd00:9::1/128", "dev", spec.HostInterface)
	pod.Run("ping", "-c1", "-W2", "192.0.2.1")
	pod.Run("ping", "-c1", "-W2", "2001:db8::1")
	if err := n.check(in(pod)); err != nil {
		t.Error(err)
	}
	link := pod.Link("eth0").Attrs()
	if link.MTU != 1400 || link.HardwareAddr.String() != mac {
		t.Errorf("pod has MTU %d and %s, want 1400 and %s", link.MTU, link.HardwareAddr, mac)
	}
	host := n.Link(spec.HostInterface).Attrs()
	if host.MTU != 1400 || host.HardwareAddr.String() != wire.HostMAC {
		t.Errorf("host has MTU %d and %s, want 1400 and %s", host.MTU, host.HardwareAddr, wire.HostMAC)
	}
	if got := strings.TrimSpace(n.Run("sysctl", "-n", "net.ipv6.conf."+spec.HostInterface+".accept_ra")); got != "0" {
		t.Errorf("accept_ra of the host side is %s: a pod's router advertisement would configure the node", got)
	}
}

func TestAttachingAgainKeepsTheLink(t *testing.T) {
	n, pod := newNode(t), kerneltest.New(t)
	first := n.attach(in(pod))
	index := n.Link(spec.HostInterface).Attrs().Index
	if again := n.attach(in(pod)); again != first || n.Link(spec.HostInterface).Attrs().Index != index {
		t.Errorf("attached again as another link: %s, then %s", first, again)
	}
}

func TestThePodHasTheHardwareAddressThatItAskedFor(t *testing.T) {
	n, pod := newNode(t), kerneltest.New(t)
	s := in(pod)
	s.MAC, _ = net.ParseMAC("02:00:5e:10:00:01")
	if got := n.attach(s); got != s.MAC.String() {
		t.Errorf("the pod has %s", got)
	}
	n.route()
	if err := n.check(s); err != nil {
		t.Error(err)
	}
	pod.Run("ip", "link", "set", "eth0", "address", "02:00:00:00:00:02")
	if err := n.check(s); err == nil {
		t.Error("another hardware address is not found")
	}
}

func TestDetachingTwiceIsSuccess(t *testing.T) {
	n, pod := newNode(t), kerneltest.New(t)
	n.attach(in(pod))
	for range 2 {
		n.Do(func() {
			if err := n.host.Detach(spec.HostInterface); err != nil {
				t.Error(err)
			}
		})
	}
	if _, err := pod.LinkByName("eth0"); err == nil {
		t.Error("the pod still has eth0")
	}
}

func TestAPathThatIsNoNamespaceIsToldFromOtherErrors(t *testing.T) {
	n := newNode(t)
	s := spec
	s.Netns = "/nonexistent"
	n.Do(func() {
		if _, err := n.host.Attach(s); !errors.Is(err, ErrNoNetns) {
			t.Errorf("got %v, want ErrNoNetns", err)
		}
	})
}

func TestAnInterfaceThatIsNotOursIsLeftAloneAndNothingOfOursStays(t *testing.T) {
	n, pod, other := newNode(t), kerneltest.New(t), kerneltest.New(t)
	kerneltest.Veth(pod, "eth0", other, "x")
	n.Do(func() {
		if _, err := n.host.Attach(in(pod)); err == nil {
			t.Error("attached over an interface of somebody else")
		}
	})
	if _, err := n.LinkByName(spec.HostInterface); err == nil {
		t.Error("half an attachment was left")
	}
}

func TestItem16CheckFindsWhatWasBroken(t *testing.T) {
	const host = "kor0123456789a"
	inPod := func(args ...string) func(*node, *kerneltest.Namespace) {
		return func(_ *node, pod *kerneltest.Namespace) { pod.Run("ip", args...) }
	}
	onNode := func(args ...string) func(*node, *kerneltest.Namespace) {
		return func(n *node, _ *kerneltest.Namespace) { n.Run("ip", args...) }
	}
	for what, sabotage := range map[string]func(*node, *kerneltest.Namespace){
		"nothing":                       nil,
		"address of the pod":            inPod("addr", "del", "10.9.0.1/32", "dev", "eth0"),
		"IPv6 address of the pod":       inPod("addr", "del", "fd00:9::1/128", "dev", "eth0"),
		"default route of the pod":      inPod("route", "del", "default"),
		"IPv6 default route of the pod": inPod("-6", "route", "del", "default"),
		"default route elsewhere":       inPod("route", "replace", "default", "dev", "lo"),
		"route to the gateway":          func(_ *node, pod *kerneltest.Namespace) { pod.Run("ip", "route", "del", "169.254.1.1") },
		"neighbour of the pod":          inPod("neigh", "replace", "169.254.1.1", "lladdr", "02:00:00:00:00:01", "dev", "eth0", "nud", "permanent"),
		"pod's interface is down":       func(_ *node, pod *kerneltest.Namespace) { pod.Down("eth0") },
		"MTU in the pod":                inPod("link", "set", "eth0", "mtu", "1300"),
		"pod's interface is renamed": func(_ *node, pod *kerneltest.Namespace) {
			pod.Down("eth0")
			pod.Run("ip", "link", "set", "eth0", "name", "eth9")
		},
		"host interface is gone":       func(n *node, _ *kerneltest.Namespace) { n.Remove(host) },
		"host interface is down":       onNode("link", "set", host, "down"),
		"hardware address on the node": onNode("link", "set", host, "address", "02:00:00:00:00:01"),
		"MTU on the node":              onNode("link", "set", host, "mtu", "1300"),
		"neighbour of the node":        onNode("neigh", "del", "10.9.0.1", "dev", host),
		"route of the node":            onNode("route", "del", "10.9.0.1"),
		"IPv6 route of the node":       onNode("-6", "route", "del", "fd00:9::1"),
		"route elsewhere":              onNode("route", "replace", "10.9.0.1/32", "dev", "lo"),
		"retired": func(n *node, _ *kerneltest.Namespace) {
			if err := n.host.Retire(host); err != nil {
				n.t.Error(err)
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			n, pod := newNode(t), kerneltest.New(t)
			n.attach(in(pod))
			n.route()
			if sabotage != nil {
				sabotage(n, pod)
			}
			err := n.check(in(pod))
			if (err != nil) != (sabotage != nil) {
				t.Errorf("check: %v", err)
			}
			t.Log(err)
		})
	}
}

func TestARetiredVethIsNobodysUntilAllOfThemAreReapedAtOnce(t *testing.T) {
	n, first := newNode(t), kerneltest.New(t)
	n.attach(in(first))
	n.Do(func() {
		for range 2 {
			if err := n.host.Retire(spec.HostInterface); err != nil {
				t.Error(err)
			}
		}
		if there, err := n.host.Exists(spec.HostInterface); err != nil || there {
			t.Errorf("a retired veth exists (%v)", err)
		}
		if all, err := n.host.Wired(); err != nil || len(all) > 0 {
			t.Errorf("a retired veth is an attachment: %v, %v", all, err)
		}
	})
	// The same sandbox again must not get the veth that is about to go.
	n.attach(in(first))
	n.Do(func() {
		if err := n.host.Reap(); err != nil {
			t.Error(err)
		}
		if there, _ := n.host.Exists(spec.HostInterface); !there {
			t.Error("the new veth was reaped")
		}
		if err := n.host.Retire(spec.HostInterface); err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := n.host.Reap(); err != nil {
				t.Error(err)
			}
		}
	})
	if _, err := first.LinkByName("eth0"); err == nil {
		t.Error("the pod still has eth0")
	}
}

func TestTheKernelTellsWhoHasWhichAddress(t *testing.T) {
	n, pod, other := newNode(t), kerneltest.New(t), kerneltest.New(t)
	n.attach(in(pod))
	kerneltest.Veth(n.Namespace, "korffffffffff", other, "x") // an attachment that was not finished
	kerneltest.Veth(n.Namespace, "eth7", other, "y")
	n.Run("ip", "neigh", "del", "10.9.0.1", "dev", spec.HostInterface) // the route is enough, and so is the neighbour
	n.Run("ip", "route", "add", "10.9.0.1/32", "dev", spec.HostInterface, "proto", "112")
	want := []Wired{{HostInterface: spec.HostInterface, Addrs: spec.Addrs}, {HostInterface: "korffffffffff"}}
	n.Do(func() {
		got, err := n.host.Wired()
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); err != nil || diff != "" {
			t.Errorf("%v %s", err, diff)
		}
	})
}

func TestTheInterfaceOfAnotherSandboxIsTold(t *testing.T) {
	n, pod, other := newNode(t), kerneltest.New(t), kerneltest.New(t)
	n.attach(in(pod))
	if err := n.check(in(other)); !errors.Is(err, ErrElsewhere) {
		t.Errorf("got %v, want ErrElsewhere", err)
	}
}

func TestTheMTUIsThatOfTheDefaultRoute(t *testing.T) {
	n, other := newNode(t), kerneltest.New(t)
	kerneltest.Veth(n.Namespace, "up0", other, "x")
	n.Run("ip", "link", "set", "up0", "mtu", "1280", "up")
	other.Up("x")
	n.Run("ip", "route", "add", "default", "dev", "up0")
	n.Do(func() {
		if got, err := n.host.UplinkMTU(); err != nil || got != 1280 {
			t.Errorf("got %d, %v; want 1280", got, err)
		}
	})
}

func TestItem10TheMTUOfBothEndsChangesWhileThePodRuns(t *testing.T) {
	n, pod := newNode(t), kerneltest.New(t)
	n.attach(in(pod))
	n.route()
	for _, mtu := range []int{1280, 9000, 9000, 1400} {
		s := in(pod)
		s.MTU = mtu
		n.Do(func() {
			if err := n.host.SetMTU(s); err != nil {
				t.Error(err)
			}
		})
		if err := n.check(s); err != nil {
			t.Errorf("MTU %d: %v", mtu, err)
		}
	}
	n.Do(func() {
		n.Remove(spec.HostInterface)
		if err := n.host.SetMTU(in(pod)); err != nil {
			t.Errorf("of a pod that is gone: %v", err)
		}
	})
}
