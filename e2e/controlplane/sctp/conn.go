package sctp

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// Times of what is repeated, and of giving up.
const (
	repeat     = 300 * time.Millisecond
	dialTime   = 60 * time.Second
	writeTime  = 5 * time.Second
	closeTime  = 2 * time.Second
	noDeadline = 24 * time.Hour
)

var (
	errReset   = errors.New("sctp: connection reset by peer")
	errTimeout = errors.New("sctp: connection timed out")
)

// SCTPConn is one association with one stream. One message is under way at a time.
type SCTPConn struct {
	socket *socket
	peer   peer
	local  greeting

	mu          sync.Mutex // guards all below
	changed     chan struct{}
	remote      uint32 // the peer's tag
	cookie      []byte
	established bool
	sent        uint32 // last sequence number sent
	stream      uint16 // messages sent
	acked       uint32 // last of them that has arrived
	heard       uint32 // last sequence number of the peer that came in order
	inbox       [][]byte
	ended       bool // the peer sends no more
	err         error
	deadline    time.Time
}

func newConn(s *socket, who peer, local greeting) *SCTPConn {
	return &SCTPConn{
		socket: s, peer: who, local: local, changed: make(chan struct{}),
		sent: local.first - 1, acked: local.first - 1,
	}
}

// handle takes in one chunk of the peer. One with another tag is of an association
// that is over, or forged.
func (c *SCTPConn) handle(tag uint32, k chunk) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if tag != c.local.tag {
		return
	}
	switch k.kind {
	case initiateAck:
		g, cookie, ok := parseGreeting(k.body)
		if !ok || cookie == nil || c.cookie != nil {
			return
		}
		c.remote, c.heard, c.cookie = g.tag, g.first-1, cookie
		c.send(chunk{kind: cookieEcho, body: cookie})
	case cookieAck:
		c.established = true
	case data:
		c.take(k.body)
	case selectiveAck:
		if len(k.body) >= 4 {
			c.acked = binary.BigEndian.Uint32(k.body)
		}
	case heartbeat:
		c.send(chunk{kind: heartbeatAck, body: k.body})
	case abort:
		c.ended, c.err = true, errReset
	case shutdown:
		c.ended = true
		c.send(chunk{kind: shutdownAck})
	case shutdownAck:
		c.ended = true
		c.send(chunk{kind: shutdownComplete})
	case shutdownComplete:
		c.ended = true
	}
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *SCTPConn) send(k chunk) { c.socket.send(c.peer, c.remote, k) }

const dataHead = 12 // sequence number, stream, number in it, protocol

// take acknowledges also what it had before: the acknowledgement may be lost.
func (c *SCTPConn) take(body []byte) {
	if len(body) < dataHead {
		return
	}
	if n := binary.BigEndian.Uint32(body); n == c.heard+1 {
		c.heard = n
		c.inbox = append(c.inbox, body[dataHead:])
	}
	ack := binary.BigEndian.AppendUint32(nil, c.heard)
	ack = binary.BigEndian.AppendUint32(ack, window)
	c.send(chunk{kind: selectiveAck, body: append(ack, 0, 0, 0, 0)})
}

// until calls send now and again until done, and says whether that came in time.
// Both are called with the lock held.
func (c *SCTPConn) until(limit time.Duration, send func(), done func() bool) bool {
	over := time.NewTimer(limit)
	defer over.Stop()
	again := time.NewTicker(repeat)
	defer again.Stop()
	for now := true; ; {
		c.mu.Lock()
		if done() {
			c.mu.Unlock()
			return true
		}
		if now {
			send()
		}
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
			now = false
		case <-again.C:
			now = true
		case <-over.C:
			return false
		}
	}
}

func (c *SCTPConn) connect() error {
	ok := c.until(dialTime, func() {
		if c.cookie == nil {
			c.socket.send(c.peer, 0, chunk{kind: initiate, body: c.local.marshal(nil)})
		} else {
			c.send(chunk{kind: cookieEcho, body: c.cookie})
		}
	}, func() bool { return c.established || c.err != nil })
	if !ok {
		return errTimeout
	}
	return c.failure()
}

func (c *SCTPConn) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Read returns one message, or as much of it as fits.
func (c *SCTPConn) Read(b []byte) (int, error) {
	limit := noDeadline
	c.mu.Lock()
	if !c.deadline.IsZero() {
		limit = time.Until(c.deadline)
	}
	c.mu.Unlock()
	if !c.until(limit, func() {}, func() bool { return len(c.inbox) > 0 || c.ended }) {
		return 0, os.ErrDeadlineExceeded
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.inbox) > 0 {
		n := copy(b, c.inbox[0])
		c.inbox = c.inbox[1:]
		return n, nil
	}
	if c.err != nil {
		return 0, c.err
	}
	return 0, io.EOF
}

// Write sends one message and returns when it has arrived.
func (c *SCTPConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	c.sent++
	number := c.sent
	body := binary.BigEndian.AppendUint32(nil, number)
	body = binary.BigEndian.AppendUint16(body, 0)
	body = binary.BigEndian.AppendUint16(body, c.stream)
	body = append(append(body, 0, 0, 0, 0), b...)
	c.stream++
	c.mu.Unlock()
	ok := c.until(writeTime, func() { c.send(chunk{kind: data, flags: whole, body: body}) },
		func() bool { return int32(c.acked-number) >= 0 || c.ended })
	if !ok {
		return 0, os.ErrDeadlineExceeded
	}
	return len(b), c.failure()
}

// Close tells the peer and waits for its answer a little.
func (c *SCTPConn) Close() error {
	c.until(closeTime, func() {
		c.send(chunk{kind: shutdown, body: binary.BigEndian.AppendUint32(nil, c.heard)})
	}, func() bool { return c.ended })
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	c.socket.drop(c)
	return nil
}

// LocalAddr is the local port; which address is the routing table's choice.
func (c *SCTPConn) LocalAddr() net.Addr { return &SCTPAddr{Port: int(c.socket.port)} }

// RemoteAddr is the peer.
func (c *SCTPConn) RemoteAddr() net.Addr {
	a, _ := c.SCTPRemoteAddr(0)
	return a
}

// SCTPRemoteAddr is the peer; its one stream has no other.
func (c *SCTPConn) SCTPRemoteAddr(int) (*SCTPAddr, error) {
	ip := net.IPAddr{IP: c.peer.addr.AsSlice(), Zone: c.peer.addr.Zone()}
	return &SCTPAddr{IPAddrs: []net.IPAddr{ip}, Port: int(c.peer.port)}, nil
}

// SetReadDeadline is for calls of Read from now on.
func (c *SCTPConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	return nil
}

// SetWriteDeadline does nothing: Write gives up by itself.
func (c *SCTPConn) SetWriteDeadline(time.Time) error { return nil }

// SetDeadline is SetReadDeadline.
func (c *SCTPConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }
