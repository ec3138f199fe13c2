package pathmtu

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/desired"
)

// family is what differs between ICMP of IPv4 and of IPv6.
type family struct {
	network string
	header  int // bytes of the IP header
	least   int // the size that every link of the family carries
	request byte
	reply   byte
	large   byte // the type of "packet is too large" ...
	code    int  // ... and its code, -1: any
	udp     string
	level   int // of the socket options ...
	option  int // ... that forbids to fragment, ...
	errors  int // ... and that tells what is answered to datagrams
}

var families = map[bool]family{ // by: is it IPv6
	false: {"ip4:icmp", 20, 68, 8, 0, 3, 4, "udp4", unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_RECVERR},
	true:  {"ip6:ipv6-icmp", 40, 1280, 128, 129, 2, -1, "udp6", unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_RECVERR},
}

// echoHeader is the length of the header of an echo, and smallData what a small one
// carries: so small that every link takes it.
const (
	echoHeader = 8
	smallData  = 16
)

// grace is how long a large packet may take longer than a few times what a small one
// takes.
const grace = 100 * time.Millisecond

func (f family) small() int { return f.header + echoHeader + smallData }

// wire sends echo requests and hears what comes back.
type wire struct {
	conns     map[bool]*net.IPConn
	datagrams map[bool]*net.UDPConn
	id        uint16
	cookie    [smallData]byte // begins the data of every packet
	turn      uint32          // of unfinished

	mu      sync.Mutex // guards the rest
	next    uint16
	waiting map[uint16]*shot // by sequence number
	small   int              // of waiting that are small and not answered
	left    int              // of waiting that are not answered
	near    chan struct{}    // closed when small is 0
	done    chan struct{}    // closed when left is 0
}

// shot is one packet that was sent.
type shot struct {
	to       netip.Addr
	small    bool
	answered bool
	told     int
}

// open opens raw sockets in the network namespace of the calling thread. A family
// that the kernel has not got is left out.
func open() (*wire, error) {
	w := &wire{conns: map[bool]*net.IPConn{}, datagrams: map[bool]*net.UDPConn{}, waiting: map[uint16]*shot{}}
	var id [2]byte
	_, _ = rand.Read(id[:]) // never fails
	_, _ = rand.Read(w.cookie[:])
	w.id = binary.BigEndian.Uint16(id[:])
	for is6, f := range families {
		c, err := net.ListenPacket(f.network, "")
		if errors.Is(err, unix.EAFNOSUPPORT) {
			continue
		}
		if err != nil {
			w.close()
			return nil, fmt.Errorf("echo requests: %w", err)
		}
		w.conns[is6] = c.(*net.IPConn)
		// It may send what the interface takes, not to be fragmented, whatever the
		// kernel has learned of the path, and where the node's own packets are encrypted
		// it goes outside.
		const probe = 3 // IP_PMTUDISC_PROBE and IPV6_PMTUDISC_PROBE
		err = errors.Join(setOption(w.conns[is6], f.level, f.option, probe), setOption(w.conns[is6], unix.SOL_SOCKET, unix.SO_MARK, desired.ApartMark))
		if err != nil {
			w.close()
			return nil, fmt.Errorf("echo requests: %w", err)
		}
	}
	if err := w.openDatagrams(); err != nil {
		w.close()
		return nil, fmt.Errorf("datagrams: %w", err)
	}
	return w, nil
}

func (w *wire) close() {
	for _, c := range w.conns {
		c.Close()
	}
	for _, c := range w.datagrams {
		c.Close()
	}
}

// listen hears answers of one family until the socket is closed.
func (w *wire) listen(is6 bool) {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := w.conns[is6].ReadFromIP(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if addr, ok := netip.AddrFromSlice(fromIP(from)); err == nil && ok {
			w.hear(families[is6], addr.Unmap(), buf[:n])
		}
	}
}

func fromIP(a *net.IPAddr) net.IP {
	if a == nil {
		return nil
	}
	return a.IP
}

// hear takes in one message: an answer, or what a router says of a request.
func (w *wire) hear(f family, from netip.Addr, b []byte) {
	if len(b) < echoHeader {
		return
	}
	told := 0
	switch {
	case b[0] == f.reply:
		if !bytes.HasPrefix(b[echoHeader:], w.cookie[:]) {
			return
		}
	case b[0] == f.large && (f.code < 0 || int(b[1]) == f.code):
		told = int(binary.BigEndian.Uint32(b[4:8]) & 0xffff) // 16 bits in IPv4, the rest is 0
		if from, b = f.quoted(b[echoHeader:]); len(b) < echoHeader || b[0] != f.request || told < f.least {
			return
		}
	default:
		return
	}
	if binary.BigEndian.Uint16(b[4:6]) != w.id {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.waiting[binary.BigEndian.Uint16(b[6:8])]
	if s == nil || s.to != from || s.answered || s.told > 0 {
		return
	}
	s.told, s.answered = told, told == 0
	if s.small {
		if w.small--; w.small == 0 {
			close(w.near)
		}
	}
	if w.left--; w.left == 0 {
		close(w.done)
	}
}

// quoted returns what a router cites of a packet: to whom it was, and its ICMP message.
func (f family) quoted(b []byte) (to netip.Addr, message []byte) {
	if len(b) < f.header {
		return to, nil
	}
	if f.header == 20 {
		to, _ = netip.AddrFromSlice(b[16:20])
		return to, b[min(len(b), int(b[0]&15)*4):]
	}
	to, _ = netip.AddrFromSlice(b[24:40])
	return to, b[f.header:]
}

// pair is a peer and the size of the large packet to it.
type pair struct {
	to   Peer
	size int
}

// volley sends a small and a large packet to each, and returns the answers that come
// until all are there or wait is over. Large ones are waited for no longer than a few
// times as long as all small ones took: they are sent at the same time.
func (w *wire) volley(ctx context.Context, pairs []pair, wait time.Duration) []answer {
	shots := make([][2]*shot, len(pairs))
	w.mu.Lock()
	w.waiting, w.small, w.left = map[uint16]*shot{}, len(pairs), 2*len(pairs)
	w.near, w.done = make(chan struct{}), make(chan struct{})
	first := w.next
	for i, p := range pairs {
		for j := range 2 {
			shots[i][j] = &shot{to: p.to.Addr, small: j == 0}
			w.waiting[w.next] = shots[i][j]
			w.next++
		}
	}
	near, done := w.near, w.done
	w.mu.Unlock()
	begun := time.Now()
	for i, p := range pairs {
		number := first + uint16(2*i)
		if w.send(p.to, number, families[p.to.Addr.Is6()].small()) == nil {
			_ = w.send(p.to, number+1, p.size) // what the interface does not take is not answered
		}
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for over := false; !over; {
		over = true
		select {
		case <-near:
			timer.Reset(min(wait, grace+4*time.Since(begun)))
			near, over = nil, false
		case <-done:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting = nil
	out := make([]answer, len(pairs))
	for i, s := range shots {
		out[i] = answer{small: s[0].answered, large: s[1].answered, told: s[1].told}
	}
	return out
}

// send sends an echo request that makes a packet of so many bytes.
func (w *wire) send(to Peer, number uint16, size int) error {
	f := families[to.Addr.Is6()]
	c := w.conns[to.Addr.Is6()]
	if c == nil {
		return unix.EAFNOSUPPORT
	}
	b := make([]byte, max(size-f.header, echoHeader+smallData))
	b[0] = f.request
	binary.BigEndian.PutUint16(b[4:6], w.id)
	binary.BigEndian.PutUint16(b[6:8], number)
	copy(b[echoHeader:], w.cookie[:])
	if !to.Addr.Is6() { // of IPv6 the kernel makes it
		binary.BigEndian.PutUint16(b[2:4], checksum(b))
	}
	through, err := to.through()
	if err == nil {
		_, _, err = c.WriteMsgIP(b, through, &net.IPAddr{IP: to.Addr.AsSlice(), Zone: to.Addr.Zone()})
	}
	return err
}

// through returns the control message that makes a packet leave through the tunnel to
// the peer, if it has one. The kernel then takes the other end to be on its link, as
// the tunnel's neighbours are.
func (p Peer) through() ([]byte, error) {
	if p.Tunnel == "" {
		return nil, nil
	}
	link, err := net.InterfaceByName(p.Tunnel)
	if err != nil {
		return nil, err
	}
	if p.Addr.Is6() {
		return unix.PktInfo6(&unix.Inet6Pktinfo{Ifindex: uint32(link.Index)}), nil
	}
	return unix.PktInfo4(&unix.Inet4Pktinfo{Ifindex: int32(link.Index)}), nil
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
