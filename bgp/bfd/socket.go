package bfd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The ports of RFC 5881 and RFC 5883, and those that packets are sent from.
const (
	singleHopPort, multihopPort = 3784, 4784
	firstSource, lastSource     = 49152, 65535
)

const (
	// maxTTL is what packets are sent with, and on the link must arrive with.
	maxTTL = 255
	// networkControl is the class of service of routing protocols (CS6).
	networkControl = 0xc0
	// drainLimit bounds what is read at once while a session waits for its end.
	drainLimit = 1024
)

// port is one that packets come to.
type port struct{ multihop, v6 bool }

func (k Key) port() port { return port{multihop: k.Multihop, v6: k.Peer.Is6()} }

func (p port) number() int {
	if p.multihop {
		return multihopPort
	}
	return singleHopPort
}

func (p port) network() string {
	if p.v6 {
		return "udp6"
	}
	return "udp4"
}

// arrival is a packet with what its headers said.
type arrival struct {
	port     port
	from, to netip.Addr // without zones
	link     uint32     // index of the interface, if from is link-local
	ttl      uint8
	data     []byte
}

// receiver is the socket of one port.
type receiver struct {
	port port
	conn *net.UDPConn
	raw  syscall.RawConn
}

// listen opens the port if it is not open, and begins to read.
func (s *System) listen(p port) error {
	if s.ports[p] != nil {
		return nil
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error { return control(c, p.prepare) }}
	pc, err := lc.ListenPacket(context.Background(), p.network(), fmt.Sprint(":", p.number()))
	if err != nil {
		return fmt.Errorf("bfd port: %w", err)
	}
	conn := pc.(*net.UDPConn)
	raw, err := conn.SyscallConn()
	if err != nil {
		return errors.Join(fmt.Errorf("bfd port: %w", err), conn.Close())
	}
	r := &receiver{port: p, conn: conn, raw: raw}
	s.ports[p] = r
	s.running.Go(func() { s.read(r) })
	return nil
}

func control(c syscall.RawConn, f func(fd int) error) error {
	var err error
	return errors.Join(c.Control(func(fd uintptr) { err = f(int(fd)) }), err)
}

// prepare asks for TTL and destination of each packet. On a single-hop port the
// kernel drops what came over a router.
func (p port) prepare(fd int) error {
	level, options, offset := unix.IPPROTO_IP, []int{unix.IP_RECVTTL, unix.IP_PKTINFO}, 8
	if p.v6 {
		level, options, offset = unix.IPPROTO_IPV6, []int{unix.IPV6_RECVHOPLIMIT, unix.IPV6_RECVPKTINFO}, 7
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, level, o, 1); err != nil {
			return fmt.Errorf("socket option %d: %w", o, err)
		}
	}
	if p.multihop {
		return nil
	}
	const networkHeader = -0x100000 // SKF_NET_OFF
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: uint32(networkHeader + offset)},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: maxTTL, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffff},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog); err != nil {
		return fmt.Errorf("socket filter: %w", err)
	}
	return nil
}

// closePorts closes the ports that no session needs.
func (s *System) closePorts() {
	needed := map[port]bool{}
	for k := range s.byKey {
		needed[k.port()] = true
	}
	for p, r := range s.ports {
		if !needed[p] {
			r.conn.Close() // ends its reader
			delete(s.ports, p)
		}
	}
}

// read takes packets in until the port is closed.
func (s *System) read(r *receiver) {
	b := newBuffer()
	for {
		var a arrival
		var got result
		err := r.raw.Read(func(fd uintptr) bool {
			a, got = r.take(int(fd), b)
			return got != nothing
		})
		if err != nil {
			return
		}
		if got == packet {
			s.receive(a, time.Now())
		}
	}
}

// drain takes in what waits in the ports. The readers may do so meanwhile too.
func (s *System) drain() {
	s.mu.Lock()
	all := make([]*receiver, 0, len(s.ports))
	for _, r := range s.ports {
		all = append(all, r)
	}
	s.mu.Unlock()
	b := newBuffer()
	for _, r := range all {
		// An error means that the port was closed: nothing waits there.
		_ = r.raw.Control(func(fd uintptr) {
			for range drainLimit {
				a, got := r.take(int(fd), b)
				if got == nothing {
					return
				}
				if got == packet {
					s.receive(a, time.Now())
				}
			}
		})
	}
}

type result uint8

const (
	nothing result = iota // no packet waits
	broken                // what was read is of no use
	packet
)

// buffer is room for one packet and its control messages.
type buffer struct{ data, control []byte }

func newBuffer() buffer { return buffer{make([]byte, 256), make([]byte, 256)} }

// take reads one packet without waiting.
func (r *receiver) take(fd int, b buffer) (arrival, result) {
	n, oobn, _, from, err := unix.Recvmsg(fd, b.data, b.control, unix.MSG_DONTWAIT)
	if errors.Is(err, unix.EAGAIN) {
		return arrival{}, nothing
	}
	if err != nil {
		return arrival{}, broken
	}
	a := arrival{port: r.port, data: b.data[:n]}
	a.headers(b.control[:oobn])
	switch from := from.(type) {
	case *unix.SockaddrInet4:
		a.from = netip.AddrFrom4(from.Addr)
	case *unix.SockaddrInet6:
		a.from = netip.AddrFrom16(from.Addr)
		a.link = from.ZoneId
	}
	return a, packet
}

// headers reads the control messages of a packet.
func (a *arrival) headers(b []byte) {
	for len(b) >= unix.CmsgLen(0) {
		h, data, rest, err := unix.ParseOneSocketControlMessage(b)
		if err != nil {
			return
		}
		b = rest
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_TTL, h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_HOPLIMIT:
			a.ttl = uint8(binary.NativeEndian.Uint32(data))
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO:
			a.to = netip.AddrFrom4([4]byte(data[8:12]))
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO:
			a.to = netip.AddrFrom16([16]byte(data[:16]))
		}
	}
}

// sender is the socket that packets of one session are sent from. It is opened by
// the first packet and again after an error: addresses and links come and go.
type sender struct {
	session Key
	fd      int    // 0: none
	source  int    // port
	link    uint32 // index that the zone of a link-local neighbour had when fd was opened
}

// send sends a packet, or drops it.
func (s *sender) send(b []byte) error {
	if s.fd == 0 {
		if err := s.open(); err != nil {
			return err
		}
	}
	err := unix.Send(s.fd, b, unix.MSG_DONTWAIT)
	if err != nil {
		// It may be the answer to the packet before: nobody listened, no route.
		err = unix.Send(s.fd, b, unix.MSG_DONTWAIT)
	}
	if err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.ENOBUFS) {
		s.close()
	}
	return err
}

func (s *sender) open() error {
	local := s.session.Local
	family, unspecified := unix.AF_INET, netip.IPv4Unspecified()
	if s.session.Peer.Is6() {
		family, unspecified = unix.AF_INET6, netip.IPv6Unspecified()
	}
	if !local.IsValid() {
		local = unspecified
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("bfd socket: %w", err)
	}
	s.fd, s.link = fd, 0
	if zone := s.session.Peer.Zone(); zone != "" {
		// Looked up here, not for each packet that comes: others would make us ask.
		if ifi, err := net.InterfaceByName(zone); err == nil {
			s.link = uint32(ifi.Index)
		}
	}
	if err := errors.Join(s.prepare(), s.bind(local), s.connect()); err != nil {
		s.close()
		return fmt.Errorf("bfd socket to %s: %w", s.session.Peer, err)
	}
	return nil
}

func (s *sender) prepare() error {
	if s.session.Peer.Is6() {
		return errors.Join(unix.SetsockoptInt(s.fd, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, maxTTL),
			unix.SetsockoptInt(s.fd, unix.IPPROTO_IPV6, unix.IPV6_TCLASS, networkControl))
	}
	return errors.Join(unix.SetsockoptInt(s.fd, unix.IPPROTO_IP, unix.IP_TTL, maxTTL),
		unix.SetsockoptInt(s.fd, unix.IPPROTO_IP, unix.IP_TOS, networkControl))
}

// bind takes a source port: the one it had, as it is to stay the same, or one that
// is free. No two sessions of a node have the same.
func (s *sender) bind(local netip.Addr) error {
	var err error
	for range 64 {
		if s.source == 0 {
			s.source = firstSource + rand.IntN(lastSource-firstSource+1)
		}
		if err = unix.Bind(s.fd, s.sockaddr(local, s.source)); !errors.Is(err, unix.EADDRINUSE) {
			break
		}
		s.source = 0
	}
	if err != nil {
		return fmt.Errorf("bind to %s: %w", local, err)
	}
	return nil
}

func (s *sender) connect() error {
	if err := unix.Connect(s.fd, s.sockaddr(s.session.Peer, s.session.port().number())); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	return nil
}

func (s *sender) close() {
	if s.fd != 0 {
		unix.Close(s.fd)
		s.fd = 0
	}
}

func (s *sender) sockaddr(a netip.Addr, port int) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4(), Port: port}
	}
	return &unix.SockaddrInet6{Addr: a.As16(), Port: port, ZoneId: s.link}
}
