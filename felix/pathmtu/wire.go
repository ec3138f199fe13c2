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
	level   int  // of the socket option that forbids to fragment
	option  int
}

var families = map[bool]family{ // by: is it IPv6
	false: {"ip4:icmp", 20, 68, 8, 0, 3, 4, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER},
	true:  {"ip6:ipv6-icmp", 40, 1280, 128, 129, 2, -1, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER},
}

// echoHeader is the length of the header of an echo, and smallData what a small one
// carries: so small that every link takes it.
const (
	echoHeader = 8
	smallData  = 16
)

func (f family) small() int { return f.header + echoHeader + smallData }

// wire sends echo requests and hears what comes back.
type wire struct {
	conns  map[bool]*net.IPConn
	id     uint16
	cookie [smallData]byte // begins the data of every request

	mu      sync.Mutex // guards the rest
	next    uint16
	waiting map[uint16]*shot // by sequence number
	left    int              // of waiting that are not answered
	done    chan struct{}    // closed when left is 0
}

// shot is one packet that was sent.
type shot struct {
	to       netip.Addr
	answered bool
	told     int
}

// open opens raw sockets in the network namespace of the calling thread. A family
// that the kernel has not got is left out.
func open() (*wire, error) {
	w := &wire{conns: map[bool]*net.IPConn{}, waiting: map[uint16]*shot{}}
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
		if err := f.prepare(w.conns[is6]); err != nil {
			w.close()
			return nil, fmt.Errorf("echo requests: %w", err)
		}
	}
	return w, nil
}

// prepare lets a socket send what the interface takes, not to be fragmented, whatever
// the kernel has learned of the path.
func (f family) prepare(c *net.IPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	const probe = 3 // IP_PMTUDISC_PROBE and IPV6_PMTUDISC_PROBE
	var option error
	err = raw.Control(func(fd uintptr) { option = unix.SetsockoptInt(int(fd), f.level, f.option, probe) })
	return errors.Join(err, option)
}

func (w *wire) close() {
	for _, c := range w.conns {
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
	to   netip.Addr
	size int
}

// volley sends a small and a large packet to each, and returns the answers that come
// until all are there or wait is over.
func (w *wire) volley(ctx context.Context, pairs []pair, wait time.Duration) []answer {
	shots := make([][2]*shot, len(pairs))
	w.mu.Lock()
	w.waiting, w.left, w.done = map[uint16]*shot{}, 2*len(pairs), make(chan struct{})
	first := w.next
	for i, p := range pairs {
		for j := range 2 {
			shots[i][j] = &shot{to: p.to}
			w.waiting[w.next] = shots[i][j]
			w.next++
		}
	}
	done := w.done
	w.mu.Unlock()
	for i, p := range pairs {
		number := first + uint16(2*i)
		if w.send(p.to, number, families[p.to.Is6()].small()) == nil {
			_ = w.send(p.to, number+1, p.size) // what the interface does not take is not answered
		}
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	case <-ctx.Done():
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
func (w *wire) send(to netip.Addr, number uint16, size int) error {
	f := families[to.Is6()]
	c := w.conns[to.Is6()]
	if c == nil {
		return unix.EAFNOSUPPORT
	}
	b := make([]byte, max(size-f.header, echoHeader+smallData))
	b[0] = f.request
	binary.BigEndian.PutUint16(b[4:6], w.id)
	binary.BigEndian.PutUint16(b[6:8], number)
	copy(b[echoHeader:], w.cookie[:])
	if !to.Is6() { // of IPv6 the kernel makes it
		binary.BigEndian.PutUint16(b[2:4], checksum(b))
	}
	_, err := c.WriteToIP(b, &net.IPAddr{IP: to.AsSlice(), Zone: to.Zone()})
	return err
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
