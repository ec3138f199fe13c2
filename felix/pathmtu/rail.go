package pathmtu

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Trains are segments of TCP to a port at which nobody listens. They are answered by
// resets, of which the kernel sends as many as it has to, whereas it says only of a few
// datagrams in a second that nobody waits for them. A reset acknowledges the last byte of
// what it answers (RFC 9293, 3.10.7.1), if that has no acknowledgement itself. So it has
// SYN: every firewall knows what that is, and no receiver joins such segments again.
const (
	tcpHeader = 20
	tcpSyn    = 2
	tcpReset  = 4
)

// virtioHeader is the length of what stands before packets that are handed to the kernel
// unfinished (struct virtio_net_hdr), and the next what is in it.
const (
	virtioHeader  = 10
	virtioNeedSum = 1
	virtioTCP4    = 1
	virtioTCP6    = 4
	etherHeader   = 14
)

// rail is a packet socket at a tunnel of VXLAN. There is no other way to have a large
// packet of TCP leave without a connection, and none for tunnels of IPIP: they ask the
// routes where the other end is, and who sends so has not asked any.
type rail struct {
	f        *os.File
	is6      bool
	peer     Peer
	ether    []byte // the header of Ethernet
	own      netip.Addr
	sequence uint32 // of the first byte, less one for SYN
}

// openRail opens it in the network namespace of the calling thread.
func openRail(p Peer) (*rail, error) {
	link, err := net.InterfaceByName(p.Tunnel)
	if err != nil {
		return nil, err
	}
	own, err := source(link, p.Addr)
	if err != nil {
		return nil, err
	}
	r := &rail{peer: p, own: own, is6: p.Addr.Is6(), sequence: rand.Uint32()}
	protocol := uint16(unix.ETH_P_IP)
	if r.is6 {
		protocol = unix.ETH_P_IPV6
	}
	r.ether = append(append(p.MAC[:], link.HardwareAddr...), byte(protocol>>8), byte(protocol))
	// It hears nothing before it is bound, and then only what passes the filter.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	r.f = os.NewFile(uintptr(fd), "trains to "+p.Addr.String())
	filter := r.filter()
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1),
		unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol>>8 | protocol<<8, Ifindex: link.Index}),
	)
	if err != nil {
		r.f.Close()
		return nil, err
	}
	return r, nil
}

// source returns the address of an interface that a peer behind it answers to.
func source(link *net.Interface, to netip.Addr) (netip.Addr, error) {
	addrs, err := link.Addrs()
	if err != nil {
		return netip.Addr{}, err
	}
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && p.Addr().Is6() == to.Is6() && p.Addr().IsLinkLocalUnicast() == to.IsLinkLocalUnicast() {
			return p.Addr(), nil
		}
	}
	return netip.Addr{}, fmt.Errorf("%s has no address to reach %s from", link.Name, to)
}

// ipHeader returns the length of the header of IP, and where in it the protocol is.
func (r *rail) ipHeader() (length, protocol int) {
	if r.is6 {
		return 40, 6
	}
	return 20, 9
}

// filter passes what comes to the two ports from the closed one.
func (r *rail) filter() []unix.SockFilter {
	length, protocol := r.ipHeader()
	load := func(size uint16, at int) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_ABS | size, K: uint32(etherHeader + at)}
	}
	unless := func(is uint32, skip uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: is, Jf: skip}
	}
	return []unix.SockFilter{
		load(unix.BPF_B, protocol),
		unless(unix.IPPROTO_TCP, 6),
		load(unix.BPF_H, length),
		unless(closedPort, 4),
		load(unix.BPF_H, length+2),
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(trainPort(finished)), Jt: 1},
		unless(uint32(trainPort(cut)), 1),
		{Code: unix.BPF_RET, K: 1 << 16},
		{Code: unix.BPF_RET},
	}
}

// trainPort is what a train is sent from: its answers are told apart by it.
func trainPort(kind byte) uint16 { return closedPort + 1 + uint16(kind) }

// haul sends both trains to a peer, waits for the answers of each, and returns what came.
// Where the first one does not arrive nothing can be said, and the other is not sent.
func haul(ctx context.Context, p Peer, wait time.Duration) (Trains, error) {
	r, err := openRail(p)
	if err != nil {
		return Trains{}, fmt.Errorf("trains to %s: %w", p.Addr, err)
	}
	defer r.f.Close()
	var t Trains
	if t.Finished, err = r.run(ctx, finished, wait); err == nil && t.Finished.nearlyWhole() {
		t.Cut, err = r.run(ctx, cut, wait)
	}
	if err != nil {
		return Trains{}, fmt.Errorf("trains to %s: %w", p.Addr, err)
	}
	return t, nil
}

// run sends one of the trains and hears the answers.
func (r *rail) run(ctx context.Context, kind byte, wait time.Duration) (Train, error) {
	stop := context.AfterFunc(ctx, func() { _ = r.f.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	begun := time.Now()
	if err := r.f.SetDeadline(begun.Add(wait)); err != nil {
		return Train{}, err
	}
	t := Train{Segments: loads * perLoad}
	each := perLoad * trainSegment
	if kind == finished {
		each = trainSegment
	}
	for at := 0; at < loads*perLoad*trainSegment; at += each {
		if _, err := r.f.Write(r.packet(kind, at, each)); err != nil {
			return Train{}, err
		}
	}
	var heard answers
	buf := make([]byte, 256)
	for t.Came < t.Segments {
		n, err := r.f.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return t, ctx.Err()
		}
		if err != nil {
			return Train{}, err
		}
		if end, ok := r.answered(kind, buf[:n]); ok {
			was := heard
			if heard.note(end); heard != was {
				t.Came, t.Took = heard.of(kind), time.Since(begun)
			}
		}
	}
	return t, nil
}

// packet makes a packet of a train, of so many bytes of data from a byte of it on, with
// what the kernel is to know before it.
func (r *rail) packet(kind byte, at, length int) []byte {
	ipLength, _ := r.ipHeader()
	ip := virtioHeader + etherHeader
	tcp := ip + ipLength
	b := make([]byte, tcp+tcpHeader+length)
	copy(b[virtioHeader:], r.ether)
	r.writeIP(b[ip:tcp], tcpHeader+length)
	segment := b[tcp:]
	binary.BigEndian.PutUint16(segment[0:], trainPort(kind))
	binary.BigEndian.PutUint16(segment[2:], closedPort)
	binary.BigEndian.PutUint32(segment[4:], r.sequence+uint32(at))
	segment[12], segment[13] = tcpHeader/4<<4, tcpSyn
	binary.BigEndian.PutUint16(segment[14:], 1<<15)                             // the window
	binary.BigEndian.PutUint16(segment[16:], ^checksum(r.pseudo(len(segment)))) // to go on from
	if kind == finished {
		binary.BigEndian.PutUint16(segment[16:], checksum(segment))
		return b
	}
	b[0], b[1] = virtioNeedSum, virtioTCP4
	if r.is6 {
		b[1] = virtioTCP6
	}
	for i, v := range []int{tcp + tcpHeader - virtioHeader, trainSegment, tcp - virtioHeader, 16} {
		binary.NativeEndian.PutUint16(b[2+2*i:], uint16(v)) // headers, segments, where the sum begins, and goes
	}
	return b
}

// writeIP writes the header of IP before a segment.
func (r *rail) writeIP(b []byte, length int) {
	if r.is6 {
		b[0] = 6 << 4
		binary.BigEndian.PutUint16(b[4:], uint16(length))
		b[6], b[7] = unix.IPPROTO_TCP, 64
		copy(b[8:], r.own.AsSlice())
		copy(b[24:], r.peer.Addr.AsSlice())
		return
	}
	b[0] = 4<<4 | 20/4
	binary.BigEndian.PutUint16(b[2:], uint16(20+length))
	b[6] = 1 << 6 // not to be fragmented
	b[8], b[9] = 64, unix.IPPROTO_TCP
	copy(b[12:], r.own.AsSlice())
	copy(b[16:], r.peer.Addr.AsSlice())
	binary.BigEndian.PutUint16(b[10:], checksum(b))
}

// pseudo is what goes into the checksum besides the segment.
func (r *rail) pseudo(length int) []byte {
	b := append(r.own.AsSlice(), r.peer.Addr.AsSlice()...)
	return binary.BigEndian.AppendUint16(append(b, 0, unix.IPPROTO_TCP), uint16(length))
}

// answered returns up to which byte of a train a packet answers for, if it does.
func (r *rail) answered(kind byte, b []byte) (end uint32, ok bool) {
	length, _ := r.ipHeader()
	if len(b) < virtioHeader+etherHeader+length+tcpHeader {
		return 0, false
	}
	ip := b[virtioHeader+etherHeader:]
	from := ip[12:16]
	if r.is6 {
		from = ip[8:24]
	}
	segment := ip[length:]
	if addr, _ := netip.AddrFromSlice(from); addr != r.peer.Addr || binary.BigEndian.Uint16(segment[2:]) != trainPort(kind) || segment[13]&tcpReset == 0 {
		return 0, false
	}
	return binary.BigEndian.Uint32(segment[8:]) - r.sequence - 1, true // SYN counts as a byte
}
