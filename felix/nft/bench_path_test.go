package nft_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
)

// BenchmarkPath sends packets from pod to pod of one node, each received before
// the next is sent: with 10, 1,000 and 10,000 policies on 200 pods, and through a
// node that only routes. It reports how many times as long the way takes, of an
// open connection and of a new one. One iteration is a round of packets through
// each node; the fastest round of each counts.
func BenchmarkPath(b *testing.B) {
	runtime.LockOSThread() // without Unlock: the runtime ends the thread
	plain := newLane(b)
	var lanes []*lane
	sizes := []int{10, 1_000, 10_000}
	for _, n := range sizes {
		l := newLane(b)
		f := l.firewall()
		l.must(f.apply(crowd(200, n, l.pods[:])))
		lanes = append(lanes, l)
	}
	for b.Loop() {
		for _, l := range append([]*lane{plain}, lanes...) {
			l.round()
		}
	}
	for i, l := range lanes {
		b.ReportMetric(float64(l.open)/float64(plain.open), fmt.Sprintf("x-open-%d", sizes[i]))
		b.ReportMetric(float64(l.fresh)/float64(plain.fresh), fmt.Sprintf("x-new-%d", sizes[i]))
	}
	b.ReportMetric(float64(plain.open.Nanoseconds()), "ns-routed")
}

// lane is a node with two pods.
type lane struct {
	t           testing.TB
	host        *kerneltest.Namespace
	pods        [2]*desired.Endpoint
	ns          [2]*kerneltest.Namespace
	to          unix.Sockaddr
	recv, send  int
	open, fresh time.Duration // the fastest median
}

const (
	packetsOpen = 3000
	packetsNew  = 600
)

func newLane(t testing.TB) *lane {
	t.Helper()
	l := &lane{t: t, host: kerneltest.New(t), open: time.Hour, fresh: time.Hour}
	l.host.Run("sysctl", "-qw", "net.ipv4.ip_forward=1")
	for i, name := range []string{"a", "b"} {
		iface := desired.HostInterface("bench", name)
		addr := netip.AddrFrom4([4]byte{10, 1, 0, byte(i + 1)})
		l.pods[i] = &desired.Endpoint{Interface: iface, Pod: "bench/" + name, Addrs: []netip.Addr{addr}}
		l.ns[i] = kerneltest.Pod(l.host, iface)
		kerneltest.Eventually(t, "link up", func() bool { return l.host.Link(iface).Attrs().OperState == netlink.OperUp })
		wire(l.host, iface, l.ns[i], addr)
	}
	l.to = &unix.SockaddrInet4{Port: 6001, Addr: l.pods[1].Addrs[0].As4()}
	l.ns[1].Do(func() { l.recv = udpSocket(t, 6001) })
	l.ns[0].Do(func() { l.send = udpSocket(t, 6002) })
	return l
}

// wire gives a pod its address and routes, with fixed neighbours.
func wire(host *kerneltest.Namespace, iface string, pod *kerneltest.Namespace, addr netip.Addr) {
	const router = "ee:ee:ee:ee:ee:ee"
	host.Run("ip", "link", "set", iface, "address", router)
	mac := pod.Link("eth0").Attrs().HardwareAddr.String()
	pod.Run("ip", "addr", "add", addr.String()+"/32", "dev", "eth0")
	pod.Run("ip", "neigh", "replace", "169.254.1.1", "lladdr", router, "dev", "eth0", "nud", "permanent")
	pod.Run("ip", "route", "add", "169.254.1.1", "dev", "eth0", "scope", "link")
	pod.Run("ip", "route", "add", "default", "via", "169.254.1.1", "dev", "eth0")
	host.Run("ip", "route", "add", addr.String(), "dev", iface)
	host.Run("ip", "neigh", "replace", addr.String(), "lladdr", mac, "dev", iface, "nud", "permanent")
}

func udpSocket(t testing.TB, port int) int {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Port: port})
	}
	if err == nil {
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1})
	}
	if err != nil {
		t.Fatalf("socket: %v", err)
	}
	return fd
}

// shoot sends a packet and returns how long it took to arrive.
func (l *lane) shoot(from int) time.Duration {
	var buf [64]byte
	begin := time.Now()
	if err := unix.Sendto(from, buf[:32], 0, l.to); err != nil {
		l.t.Fatal(err)
	}
	if _, err := unix.Read(l.recv, buf[:]); err != nil {
		l.t.Fatalf("a packet got lost: %v", err)
	}
	return time.Since(begin)
}

// round measures the way of an open connection, and of new ones.
func (l *lane) round() {
	l.t.Helper()
	l.shoot(l.send)
	back := &unix.SockaddrInet4{Port: 6002, Addr: l.pods[0].Addrs[0].As4()}
	if err := unix.Sendto(l.recv, []byte("x"), 0, back); err != nil {
		l.t.Fatal(err)
	}
	l.open = min(l.open, median(packetsOpen, func(int) time.Duration { return l.shoot(l.send) }))
	sockets := make([]int, packetsNew)
	l.ns[0].Do(func() {
		for i := range sockets {
			sockets[i] = udpSocket(l.t, 10000+i)
		}
	})
	l.fresh = min(l.fresh, median(packetsNew, func(i int) time.Duration { return l.shoot(sockets[i]) }))
	for _, fd := range sockets {
		unix.Close(fd)
	}
	if err := l.host.ConntrackTableFlush(netlink.ConntrackTable); err != nil {
		l.t.Fatal(err)
	}
	unix.Close(l.send)
	l.ns[0].Do(func() { l.send = udpSocket(l.t, 6002) })
}

func median(n int, one func(int) time.Duration) time.Duration {
	all := make([]time.Duration, n)
	for i := range all {
		all[i] = one(i)
	}
	slices.Sort(all)
	return all[n/10]
}

func (l *lane) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}
