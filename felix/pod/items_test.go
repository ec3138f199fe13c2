package pod

import (
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/koratnet/korat/felix/cniserver/wire"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
)

// lines are those of a command in a namespace, without what varies.
func lines(n *kerneltest.Namespace, args ...string) []string {
	var out []string
	for l := range strings.Lines(n.Run("ip", args...)) {
		out = append(out, strings.TrimSpace(l))
	}
	return out
}

func has(t *testing.T, where string, all []string, want ...string) {
	t.Helper()
	for _, w := range want {
		found := false
		for _, l := range all {
			found = found || strings.HasPrefix(l, w)
		}
		if !found {
			t.Errorf("%s lacks %q: %q", where, w, all)
		}
	}
}

func value(t *testing.T, n *kerneltest.Namespace, sysctl, want string) {
	t.Helper()
	if got := strings.TrimSpace(n.Run("sysctl", "-n", sysctl)); got != want {
		t.Errorf("%s is %s, want %s", sysctl, got, want)
	}
}

// The pod has its address alone, no subnet, and the way out is an address that
// nobody has; the host's side has none.
func TestItem1APodHasOneAddressAndALinkLocalGateway(t *testing.T) {
	n, pod := newNode(t), kerneltest.New(t)
	n.attach(in(pod))
	has(t, "addresses of the pod", lines(pod, "-4", "addr", "show", "eth0"), "inet 10.9.0.1/32 ")
	routes := lines(pod, "-4", "route")
	has(t, "routes of the pod", routes, "default via 169.254.1.1 dev eth0", "169.254.1.1 dev eth0 scope link")
	if len(routes) != 2 {
		t.Errorf("routes of the pod: %q", routes)
	}
	if got := n.Run("ip", "-4", "addr", "show", spec.HostInterface); strings.Contains(got, "inet ") {
		t.Errorf("the host's side has an address: %s", got)
	}
}

// The IPv6 gateway is the link-local address that follows from the fixed
// hardware address of the host's side; nobody looks for duplicates of it.
func TestItem2TheIPv6GatewayIsTheHostsLinkLocalAddress(t *testing.T) {
	n, pod := newNode(t), kerneltest.New(t)
	pod.Run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
	n.attach(in(pod))
	if got := n.Link(spec.HostInterface).Attrs().HardwareAddr.String(); got != wire.HostMAC {
		t.Errorf("hardware address of the host's side is %s", got)
	}
	kerneltest.Eventually(t, "the gateway answers", func() bool { // when the kernel has noticed that the link is up
		_, err := pod.Try("ping", "-c1", "-W1", wire.Gateway6.String()+"%eth0")
		return err == nil
	})
	if addrs := n.Run("ip", "-6", "addr", "show", spec.HostInterface); !strings.Contains(addrs, wire.Gateway6.String()+"/64") {
		t.Errorf("the host's side has %s", addrs)
	}
	if got := pod.Run("ip", "-6", "addr", "show", "eth0"); strings.Contains(got, "tentative") {
		t.Errorf("the pod waits for duplicates: %s", got)
	}
	has(t, "IPv6 routes of the pod", lines(pod, "-6", "route"), "default via "+wire.Gateway6.String()+" dev eth0")
	value(t, n.Namespace, "net.ipv6.conf."+spec.HostInterface+".accept_dad", "0")
	value(t, pod, "net.ipv6.conf.eth0.accept_dad", "0")
	for _, c := range []string{"all", "default", "lo", "eth0"} {
		value(t, pod, "net.ipv6.conf."+c+".disable_ipv6", "0")
	}
}

// A pod forwards nothing, whatever the namespace that its own was made from does.
func TestItem4APodDoesNotForward(t *testing.T) {
	n, pod := newNode(t), kerneltest.New(t)
	pod.Run("sysctl", "-qw", "net.ipv4.ip_forward=1")
	n.attach(in(pod))
	value(t, pod, "net.ipv4.ip_forward", "0")
	value(t, pod, "net.ipv4.conf.eth0.forwarding", "0")
	value(t, pod, "net.ipv6.conf.eth0.forwarding", "0")
}

// The name follows from the pod's alone and fits the kernel, so that a pod that
// comes back under its name finds, and replaces, what an earlier one left.
func TestItem6TheHostInterfaceFollowsFromThePodsName(t *testing.T) {
	name := desired.HostInterface("shop", "db-0")
	if len(name) > 15 || name != desired.HostInterface("shop", "db-0") || name == desired.HostInterface("shop", "db-1") {
		t.Errorf("host interface of shop/db-0 is %s", name)
	}
	n, first, second := newNode(t), kerneltest.New(t), kerneltest.New(t)
	n.attach(in(first))
	n.attach(in(second))
	n.route()
	if err := n.check(in(second)); err != nil {
		t.Error(err)
	}
	if _, err := first.LinkByName("eth0"); err == nil {
		t.Error("the first sandbox is still attached")
	}
}

// The peer of a veth does not inherit the MTU.
func TestItem9BothEndsHaveTheMTU(t *testing.T) {
	n, pod := newNode(t), kerneltest.New(t)
	n.attach(in(pod))
	for name, l := range map[string]netlink.Link{"the pod": pod.Link("eth0"), "the node": n.Link(spec.HostInterface)} {
		if got := l.Attrs().MTU; got != spec.MTU {
			t.Errorf("the end in %s has an MTU of %d, want %d", name, got, spec.MTU)
		}
	}
}
