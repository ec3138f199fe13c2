package dataplanetest

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/policy"
)

// wire sends whole packets from a namespace, with any source, and sees what
// arrives there.
type wire struct {
	t      testing.TB
	send   map[bool]int // raw sockets, by Is6
	recv   []int
	frames int // a packet socket of whole frames, where there is an eth0
	index  int // of eth0
}

// newWire makes a wire that sees all that comes in by the namespace's eth0.
func newWire(t testing.TB, ns *kerneltest.Namespace) *wire {
	t.Helper()
	w := &wire{t: t, send: map[bool]int{}, index: ns.Link("eth0").Attrs().Index}
	ns.Do(func() {
		w.openSend()
		w.recv = []int{packetSocket(t, unix.SOCK_DGRAM, unix.ETH_P_ALL, w.index)}
		w.frames = packetSocket(t, unix.SOCK_RAW, 0, w.index)
	})
	return w
}

// newNodeWire makes a wire that sees what a node takes in, behind its rules.
func newNodeWire(t testing.TB, ns *kerneltest.Namespace) *wire {
	t.Helper()
	w := &wire{t: t, send: map[bool]int{}}
	ns.Do(func() {
		w.openSend()
		for _, p := range []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP, policy.ICMP, ipInIP} {
			w.recv = append(w.recv, rawSocket(t, unix.AF_INET, unix.SOCK_NONBLOCK, int(p)))
		}
		for _, p := range []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP, policy.ICMPv6, ipInIP} {
			fd := rawSocket(t, unix.AF_INET6, unix.SOCK_NONBLOCK, int(p))
			w.recv = append(w.recv, -fd) // without a header
		}
	})
	return w
}

const ipInIP = policy.Protocol(4)

func (w *wire) openSend() {
	w.t.Helper()
	w.send[false] = rawSocket(w.t, unix.AF_INET, 0, unix.IPPROTO_RAW)
	w.send[true] = rawSocket(w.t, unix.AF_INET6, 0, unix.IPPROTO_RAW)
}

func rawSocket(t testing.TB, family, flags, proto int) int {
	t.Helper()
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|flags, proto)
	if err != nil {
		t.Fatalf("raw socket: %v", err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20); err != nil {
		t.Fatalf("raw socket: %v", err)
	}
	return fd
}

// transmit sends a packet.
func (w *wire) transmit(p packet) { w.raw(p.Src, p.Dst, p.Protocol, p.transport()) }

func (w *wire) raw(from, to netip.Addr, proto policy.Protocol, payload []byte) {
	w.whole(to, wrap(from, to, proto, payload))
}

// whole sends a packet with its IP header. A refusal by the sender's own kernel
// is a packet that was not delivered.
func (w *wire) whole(to netip.Addr, b []byte) {
	w.t.Helper()
	var addr unix.Sockaddr = &unix.SockaddrInet6{Addr: to.As16()}
	if to.Is4() {
		addr = &unix.SockaddrInet4{Addr: to.As4()}
	}
	if err := unix.Sendto(w.send[to.Is6()], b, 0, addr); err != nil && err != unix.EPERM {
		w.t.Logf("send to %s: %v", to, err)
	}
}

// frame sends a whole frame from eth0.
func (w *wire) frame(b []byte) {
	w.t.Helper()
	if err := unix.Sendto(w.frames, b, 0, &unix.SockaddrLinklayer{Ifindex: w.index, Halen: 6}); err != nil {
		w.t.Fatalf("send a frame: %v", err)
	}
}

// packet sends a packet to the router in a frame: no kernel of a sender has a say.
func (w *wire) packet(p packet) {
	w.t.Helper()
	f := []byte{0xee, 0xee, 0xee, 0xee, 0xee, 0xee, 2, 2, 2, 2, 2, 2, 8, 0}
	if p.Dst.Is6() {
		f[12], f[13] = 0x86, 0xdd
	}
	w.frame(append(f, wrap(p.Src, p.Dst, p.Protocol, p.transport())...))
}

// drain calls each with all packets that have come in since the last time, from
// the IP header on.
func (w *wire) drain(each func(b []byte)) {
	w.t.Helper()
	buf := make([]byte, 4096)
	for _, fd := range w.recv {
		headless := fd < 0
		if headless {
			fd = -fd
		}
		for {
			n, from, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				break // empty
			}
			if l, ok := from.(*unix.SockaddrLinklayer); ok && (l.Pkttype == unix.PACKET_OUTGOING || l.Hatype == unix.ARPHRD_LOOPBACK) {
				continue
			}
			if !headless {
				each(buf[:n])
			} else if a, ok := from.(*unix.SockaddrInet6); ok {
				each(wrap(netip.AddrFrom16(a.Addr), netip.IPv6Unspecified(), w.protocolOf(fd), buf[:n]))
			}
		}
	}
}

// protocolOf returns what a raw socket was opened for.
func (w *wire) protocolOf(fd int) policy.Protocol {
	proto, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil {
		w.t.Fatalf("protocol of a socket: %v", err)
	}
	return policy.Protocol(proto)
}
