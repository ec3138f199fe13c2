package wireguard_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/kernel/kerneltest"
)

// tap listens to all that passes a wire.
type tap struct {
	fd   int
	done chan struct{}

	mu        sync.Mutex // guards the rest
	encrypted int
	clear     []string // packets between nodes, or of their insides, that are not WireGuard's
}

// listen begins to listen to a wire between nodes; the test's end ends it.
func listen(t testing.TB, wire *kerneltest.Namespace, ports ...uint16) *tap {
	t.Helper()
	w := &tap{done: make(chan struct{})}
	wire.Do(func() {
		all := int(binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL}))
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, all)
		if err != nil {
			t.Fatal(err)
		}
		w.fd = fd
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000}); err != nil {
			t.Fatal(err)
		}
	})
	stop := make(chan struct{})
	go w.run(stop, ports)
	t.Cleanup(func() {
		close(stop)
		<-w.done
	})
	return w
}

func (w *tap) run(stop <-chan struct{}, ports []uint16) {
	defer close(w.done)
	defer unix.Close(w.fd)
	for buf := make([]byte, 65536); ; {
		select {
		case <-stop:
			return
		default:
		}
		n, _, err := unix.Recvfrom(w.fd, buf, 0)
		if err == nil {
			w.note(buf[:n], ports)
		}
	}
}

// packet is what is looked at of one.
type packet struct {
	src, dst netip.Addr
	proto    byte
	rest     []byte // after the header
}

func parse(p []byte) (packet, bool) {
	switch {
	case len(p) >= 20 && p[0]>>4 == 4 && len(p) >= int(p[0]&15)*4:
		return packet{netip.AddrFrom4([4]byte(p[12:])), netip.AddrFrom4([4]byte(p[16:])), p[9], p[int(p[0]&15)*4:]}, true
	case len(p) >= 40 && p[0]>>4 == 6:
		return packet{netip.AddrFrom16([16]byte(p[8:])), netip.AddrFrom16([16]byte(p[24:])), p[6], p[40:]}, true
	}
	return packet{}, false
}

// encrypted reports whether p is WireGuard's.
func (p packet) encrypted(ports []uint16) bool {
	r := p.rest
	return p.proto == unix.IPPROTO_UDP && len(r) >= 12 && slices.Contains(ports, binary.BigEndian.Uint16(r[2:])) &&
		r[8] >= 1 && r[8] <= 4 && r[9] == 0 && r[10] == 0 && r[11] == 0
}

// link reports whether p keeps a link alive: multicast, and what concerns link-local
// addresses or neighbours.
func (p packet) link() bool {
	return p.dst.IsMulticast() || p.src.IsLinkLocalUnicast() || p.proto == unix.IPPROTO_ICMPV6 && len(p.rest) > 0 && p.rest[0] >= 133 && p.rest[0] <= 137
}

// quotes reports whether p says that an encrypted packet did not arrive.
func (p packet) quotes(ports []uint16) bool {
	v4, v6 := byte(3), byte(1)
	if len(p.rest) < 8 || (p.proto != unix.IPPROTO_ICMP || p.rest[0] != v4) && (p.proto != unix.IPPROTO_ICMPV6 || p.rest[0] != v6) {
		return false
	}
	about, ok := parse(p.rest[8:])
	return ok && about.encrypted(ports)
}

// note sorts one packet in.
func (w *tap) note(raw []byte, ports []uint16) {
	p, ok := parse(raw)
	if !ok || p.link() || p.quotes(ports) { // ARP, or of no pod
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.encrypted(ports) {
		w.encrypted++
		return
	}
	to := fmt.Sprintf("protocol %d", p.proto)
	if p.proto == unix.IPPROTO_UDP && len(p.rest) >= 8 {
		to = fmt.Sprintf("port %d", binary.BigEndian.Uint16(p.rest[2:]))
	}
	w.clear = append(w.clear, fmt.Sprintf("%s > %s %s", p.src, p.dst, to))
}

// check fails the test if anything was to be read on the wire, or nothing was sent.
func (w *tap) check(t *testing.T) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.clear) > 0 {
		t.Errorf("%d packets in clear, such as %s", len(w.clear), w.clear[0])
	}
	if w.encrypted == 0 {
		t.Error("no encrypted packet was seen")
	}
}
