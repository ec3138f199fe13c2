// Package sctp stands in for github.com/ishidawataru/sctp in the program that
// upstream's tests run in pods: kernels without SCTP sockets have conntrack, NAT
// and matching of SCTP all the same, and these are what the tests are about. It
// speaks the protocol (RFC 9260) over a raw socket, which takes CAP_NET_RAW, as
// far as a handshake, messages on one stream, and an end. It is for tests alone:
// no congestion control, no second address, no heartbeats of its own.
package sctp

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
)

// SCTPAddr is an endpoint.
type SCTPAddr struct {
	IPAddrs []net.IPAddr
	Port    int
}

// Network is "sctp".
func (a *SCTPAddr) Network() string { return "sctp" }

func (a *SCTPAddr) String() string {
	host := ""
	if len(a.IPAddrs) > 0 {
		host = a.IPAddrs[0].String()
	}
	return net.JoinHostPort(host, strconv.Itoa(a.Port))
}

// ResolveSCTPAddr resolves host and port; without a host there is no address in
// the result.
func ResolveSCTPAddr(_, address string) (*SCTPAddr, error) {
	tcp, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return nil, err
	}
	a := &SCTPAddr{Port: tcp.Port}
	if tcp.IP != nil {
		a.IPAddrs = []net.IPAddr{{IP: tcp.IP, Zone: tcp.Zone}}
	}
	return a, nil
}

// The range of ports of clients, as Linux has it.
const firstPort, lastPort = 32768, 60999

// DialSCTP connects to remote.
func DialSCTP(_ string, _, remote *SCTPAddr) (*SCTPConn, error) {
	if remote == nil || len(remote.IPAddrs) == 0 {
		return nil, errors.New("sctp: no address to connect to")
	}
	ip := remote.IPAddrs[0]
	addr, ok := netip.AddrFromSlice(ip.IP)
	if !ok {
		return nil, fmt.Errorf("sctp: %q is no address", ip.IP)
	}
	addr = addr.Unmap()
	s, err := open(addr.Is6(), uint16(firstPort+rand.IntN(lastPort-firstPort+1)), nil)
	if err != nil {
		return nil, fmt.Errorf("sctp: %w", err)
	}
	c := newConn(s, peer{addr.WithZone(ip.Zone), uint16(remote.Port)}, newGreeting())
	s.add(c)
	go s.receive()
	if err := c.connect(); err != nil {
		s.drop(c)
		return nil, err
	}
	return c, nil
}

// SCTPListener accepts connections to one port.
type SCTPListener struct {
	sockets  []*socket
	incoming chan *SCTPConn
	closed   chan struct{}
}

const backlog = 128

// ListenSCTP listens at a port of all addresses: of the family of local's address,
// or of both if it has none.
func ListenSCTP(_ string, local *SCTPAddr) (*SCTPListener, error) {
	l := &SCTPListener{incoming: make(chan *SCTPConn, backlog), closed: make(chan struct{})}
	families := []bool{false, true}
	if len(local.IPAddrs) > 0 {
		families = []bool{local.IPAddrs[0].IP.To4() == nil}
	}
	var errs []error
	for _, v6 := range families {
		s, err := open(v6, uint16(local.Port), l.incoming)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		l.sockets = append(l.sockets, s)
		go s.receive()
	}
	if len(l.sockets) == 0 { // one family may be switched off
		return nil, fmt.Errorf("sctp: %w", errors.Join(errs...))
	}
	return l, nil
}

// AcceptSCTP waits for the next connection.
func (l *SCTPListener) AcceptSCTP() (*SCTPConn, error) {
	select {
	case c := <-l.incoming:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Accept is AcceptSCTP.
func (l *SCTPListener) Accept() (net.Conn, error) { return l.AcceptSCTP() }

// Addr is the port.
func (l *SCTPListener) Addr() net.Addr { return &SCTPAddr{Port: int(l.sockets[0].port)} }

// Close ends the listener, and with it what it has accepted.
func (l *SCTPListener) Close() error {
	close(l.closed)
	var errs []error
	for _, s := range l.sockets {
		errs = append(errs, s.raw.Close())
	}
	return errors.Join(errs...)
}
