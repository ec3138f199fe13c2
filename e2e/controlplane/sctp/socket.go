package sctp

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
)

// socket is a raw socket for one local port, of a listener or of one client. The
// kernel gives every raw socket of a network namespace every packet.
type socket struct {
	raw  *net.IPConn
	port uint16
	// incoming gets what was accepted; nil for a client's.
	incoming chan *SCTPConn

	mu    sync.Mutex // guards conns
	conns map[peer]*SCTPConn
}

type peer struct {
	addr netip.Addr
	port uint16
}

func open(v6 bool, port uint16, incoming chan *SCTPConn) (*socket, error) {
	network := "ip4:132"
	if v6 {
		network = "ip6:132"
	}
	raw, err := net.ListenIP(network, nil)
	if err != nil {
		return nil, err
	}
	s := &socket{raw: raw, port: port, incoming: incoming, conns: map[peer]*SCTPConn{}}
	return s, nil
}

func (s *socket) send(to peer, tag uint32, chunks ...chunk) {
	p := packet{from: s.port, to: to.port, tag: tag, chunks: chunks}
	// A packet that does not leave is as good as one that gets lost.
	s.raw.WriteToIP(p.marshal(), &net.IPAddr{IP: to.addr.AsSlice(), Zone: to.addr.Zone()})
}

// receive runs until the socket is closed.
func (s *socket) receive() {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := s.raw.ReadFromIP(buf)
		if err != nil {
			return
		}
		p, ok := parse(buf[:n])
		addr, valid := netip.AddrFromSlice(from.IP)
		if !ok || !valid || p.to != s.port {
			continue
		}
		who := peer{addr.Unmap().WithZone(from.Zone), p.from}
		for _, c := range p.chunks {
			s.handle(who, p.tag, c)
		}
	}
}

func (s *socket) handle(who peer, tag uint32, c chunk) {
	switch {
	case c.kind == initiate:
		s.greet(who, c.body)
	case c.kind == cookieEcho:
		s.accept(who, tag, c.body)
	default:
		s.mu.Lock()
		conn := s.conns[who]
		s.mu.Unlock()
		if conn != nil {
			conn.handle(tag, c)
		}
	}
}

func newGreeting() greeting { return greeting{tag: rand.Uint32() | 1, first: rand.Uint32()} }

func (s *socket) greet(who peer, body []byte) {
	client, _, ok := parseGreeting(body)
	if !ok || s.incoming == nil {
		return
	}
	server := newGreeting()
	answer := server.marshal(state{client, server}.marshal())
	s.send(who, client.tag, chunk{kind: initiateAck, body: answer})
}

// accept makes a connection of a cookie that came back. The answer may have been
// lost: the same cookie again is answered again.
func (s *socket) accept(who peer, tag uint32, cookie []byte) {
	st, ok := parseState(cookie)
	if !ok || s.incoming == nil || tag != st.server.tag {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	conn := s.conns[who]
	if conn == nil || conn.local.tag != tag {
		conn = newConn(s, who, st.server)
		conn.remote, conn.heard, conn.established = st.client.tag, st.client.first-1, true
		select {
		case s.incoming <- conn:
		default:
			return // nobody accepts: the client tries again
		}
		s.conns[who] = conn
	}
	s.send(who, conn.remote, chunk{kind: cookieAck})
}

func (s *socket) add(c *SCTPConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c.peer] = c
}

// drop forgets a connection; a client's socket has no other.
func (s *socket) drop(c *SCTPConn) {
	s.mu.Lock()
	if s.conns[c.peer] == c {
		delete(s.conns, c.peer)
	}
	s.mu.Unlock()
	if s.incoming == nil {
		s.raw.Close()
	}
}
