package pathmtu

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math/bits"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Offload is what is known of a tunnel whose packets leave this node unfinished: the
// kernel leaves checksums, and the cutting of large packets, to the device that sends
// them. There are devices that do it wrong for what is inside of a tunnel.
type Offload struct {
	Tunnel string // the interface
	Intact int    // nodes that unfinished packets reach
	// Node is one that only finished packets reach; empty: there is none.
	Node string
	// Segments: what does not reach it is cut from large packets. Else it is every
	// packet with a checksum that a device was to make.
	Segments bool
	// Trains, if there are any, are why Segments is said: some of what is cut arrives.
	Trains Trains
}

// left is what came back of the packets that were sent to a peer.
type left struct {
	finished bool  // by the kernel
	summed   bool  // by the device
	cut      uint8 // by the device, one bit for each segment
}

// judge says what is left over of a tunnel's packets, given what was before: nothing is
// said of a peer that answers nothing.
func (l left) judge(was remains) remains {
	switch {
	case !l.finished:
		return was
	case l.summed && 2*bits.OnesCount8(l.cut) >= segments:
		return remains{intact: true}
	}
	return remains{lost: was.lost + 1, segments: l.summed}
}

// remains is what is known of a peer behind a tunnel.
type remains struct {
	intact   bool
	lost     int  // how often in a row only finished packets came through
	segments bool // see Offload
}

// noteLeft writes down what came of unfinished packets.
func (b *book) noteLeft(p Peer, l left) {
	if b.peers[p.way()] != p {
		return
	}
	b.left[p.way()] = l.judge(b.left[p.way()])
	b.suspectLeft(p.way())
}

// suspectLeft has a peer tried more often that unfinished packets did not reach.
func (b *book) suspectLeft(w way) {
	if (b.left[w].lost > 0 || b.hauls[w].insane > 0) && !slices.Contains(b.suspect, w) {
		b.suspect = append(b.suspect, w)
	}
}

// offloads says what is known of each tunnel. That packets were lost counts when it
// happened attempts times in a row.
func (b *book) offloads() []Offload {
	by := map[string]*Offload{}
	for w, r := range b.left {
		o := by[w.tunnel]
		if o == nil {
			o = &Offload{Tunnel: w.tunnel}
			by[w.tunnel] = o
		}
		node, h := b.peers[w].Node, b.hauls[w]
		first := o.Node == "" || node < o.Node
		switch {
		case r.lost >= attempts && first:
			o.Node, o.Segments, o.Trains = node, r.segments, Trains{}
		case r.intact && h.insane < attempts:
			o.Intact++
		case r.intact && first:
			o.Node, o.Segments, o.Trains = node, true, h.last
		}
	}
	var out []Offload
	for _, o := range by {
		if o.Intact > 0 || o.Node != "" {
			out = append(out, *o)
		}
	}
	slices.SortFunc(out, func(a, b Offload) int { return cmp.Compare(a.Tunnel, b.Tunnel) })
	return out
}

// The unfinished packets go to a port at which nobody listens: who gets one that is
// right says so, and one that is wrong vanishes without a word. The port is that to
// which traceroute begins to send.
const (
	closedPort = 33434
	segment    = 512 // bytes: every path takes them
	segments   = 4   // cut from one packet
	whole      = 1<<segments - 1
)

// stamp begins the data of each packet: the cookie, a number, and what of left it is.
const stamp = smallData + 4 + 1

const (
	finished byte = iota
	summed
	cut // and the next ones: which segment it is
)

// openDatagrams opens the sockets for unfinished packets. What is answered to them
// comes as errors.
func (w *wire) openDatagrams() error {
	for is6, f := range families {
		c, err := net.ListenUDP(f.udp, nil)
		if errors.Is(err, unix.EAFNOSUPPORT) {
			continue
		}
		if err != nil {
			return err
		}
		w.datagrams[is6] = c
		if err := setOption(c, f.level, f.errors, 1); err != nil {
			return err
		}
	}
	return nil
}

func setOption(c syscall.Conn, level, option, value int) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), level, option, value) })
	return errors.Join(err, failed)
}

// unfinished sends to each peer what a device has to finish, and beside it what the
// kernel finishes, waits, and returns what came back. What cannot be sent unfinished
// is not lost.
func (w *wire) unfinished(ctx context.Context, peers []Peer, wait time.Duration) []left {
	w.turn++
	out := make([]left, len(peers))
	for i, p := range peers {
		number := w.turn<<8 | uint32(i)
		out[i].summed = w.sendDatagram(p, number, summed) != nil
		if w.sendDatagram(p, number, cut) != nil {
			out[i].cut = whole
		}
		// The last, since who answers only so many in a second answers the first ones.
		_ = w.sendDatagram(p, number, finished)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	for _, c := range w.datagrams {
		for data, from := range answered(c) {
			w.count(out, peers, data, from)
		}
	}
	return out
}

// count notes that a datagram was answered for by whom it was sent to.
func (w *wire) count(out []left, peers []Peer, data []byte, to netip.Addr) {
	if len(data) < stamp || !bytes.HasPrefix(data, w.cookie[:]) {
		return
	}
	number := binary.BigEndian.Uint32(data[smallData:])
	i := int(number & 0xff)
	if number>>8 != w.turn&0xffffff || i >= len(peers) || peers[i].Addr != to {
		return
	}
	switch kind := data[stamp-1]; {
	case kind == finished:
		out[i].finished = true
	case kind == summed:
		out[i].summed = true
	case len(data) > segment: // nothing on the way has cut it
		out[i].cut = whole
	case kind < cut+segments:
		out[i].cut |= 1 << (kind - cut)
	}
}

// sendDatagram sends one of the three.
func (w *wire) sendDatagram(to Peer, number uint32, kind byte) error {
	c := w.datagrams[to.Addr.Is6()]
	if c == nil {
		return unix.EAFNOSUPPORT
	}
	control, err := to.through()
	if err != nil {
		return err
	}
	data := make([]byte, segment)
	copy(data, w.cookie[:])
	binary.BigEndian.PutUint32(data[smallData:], number)
	data[stamp-1] = kind
	switch kind {
	case finished:
		// The kernel makes the checksum of what it collects itself.
		if err := setOption(c, unix.IPPROTO_UDP, unix.UDP_CORK, 1); err != nil {
			return err
		}
		defer func() { _ = setOption(c, unix.IPPROTO_UDP, unix.UDP_CORK, 0) }() // sends it
	case cut:
		data = bytes.Repeat(data, segments)
		for i := range segments {
			data[i*segment+stamp-1] += byte(i)
		}
		control = append(control, segmentSize(segment)...)
	}
	at := netip.AddrPortFrom(to.Addr, closedPort)
	for range segments + 1 { // what was answered to packets before is told here first
		if _, _, err = c.WriteMsgUDPAddrPort(data, control, at); !errors.Is(err, unix.ECONNREFUSED) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("to %s: %w", at, err)
	}
	return nil
}

// segmentSize makes the control message that has a packet cut.
func segmentSize(n uint16) []byte {
	b := make([]byte, unix.CmsgSpace(2))
	binary.NativeEndian.PutUint64(b, uint64(unix.CmsgLen(2)))
	binary.NativeEndian.PutUint32(b[8:], unix.IPPROTO_UDP)
	binary.NativeEndian.PutUint32(b[12:], unix.UDP_SEGMENT)
	binary.NativeEndian.PutUint16(b[unix.CmsgLen(0):], n)
	return b
}

// answered yields what peers said of datagrams that nobody waits for there: the data
// that they had, as far as it is cited, and to whom they went.
func answered(c *net.UDPConn) iter.Seq2[[]byte, netip.Addr] {
	return func(yield func([]byte, netip.Addr) bool) {
		raw, err := c.SyscallConn()
		if err != nil {
			return
		}
		data, control := make([]byte, segments*segment), make([]byte, 256)
		_ = raw.Control(func(fd uintptr) { // it fails when the socket is closed
			for {
				n, cn, _, to, err := unix.Recvmsg(int(fd), data, control, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
				if err != nil {
					return
				}
				if refused(control[:cn]) && !yield(data[:n], addrOf(to)) {
					return
				}
			}
		})
	}
}

// refused reports whether a message of ICMP says that nobody waits for a datagram.
func refused(control []byte) bool {
	messages, err := unix.ParseSocketControlMessage(control)
	for _, m := range messages {
		v4 := m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_RECVERR
		v6 := m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_RECVERR
		if err == nil && (v4 || v6) && len(m.Data) >= 4 && syscall.Errno(binary.NativeEndian.Uint32(m.Data)) == unix.ECONNREFUSED {
			return true
		}
	}
	return false
}

func addrOf(a unix.Sockaddr) netip.Addr {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(a.Addr)
	case *unix.SockaddrInet6:
		return netip.AddrFrom16(a.Addr)
	}
	return netip.Addr{}
}
