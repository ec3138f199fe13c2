package gobgp_test

import (
	"context"
	"encoding/binary"
	"flag"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
)

var hostileFor = flag.Duration("hostile", 3*time.Second, "how long hostile neighbours speak")

const (
	hostilePeers = 8
	hostileAS    = 65001
	hostileMax   = 1000 // prefixes
	// hostileMB bounds the speaker, with all that eight neighbours may announce.
	hostileMB = 250
)

// TestHostileNeighbours: malformed, mutated and unknown messages, floods, and what
// is outside the policy (RFC 7606). The speaker lives and stays small, the session
// of an honest neighbour stays up, and nothing is learned that no filter lets in.
func TestHostileNeighbours(t *testing.T) {
	router, neighbours := routerAndFan(t)
	c := fanConfig(fan{Peers: hostilePeers + 1, ASN: hostileAS}, false)
	c.Filters = []bgp.Filter{{Name: "inside", Import: []bgp.FilterRule{
		{Prefixes: []bgp.PrefixRange{{Prefix: netip.MustParsePrefix("20.0.0.0/8"), Min: 8, Max: 32}}, Accept: true}, {},
	}}}
	for i := range c.Peers {
		c.Peers[i].Import, c.Peers[i].MaxPrefixes = []string{"inside"}, hostileMax
	}
	s := startSpeaker(t, router, false)
	s.ask(request{Configure: c})
	ctx, cancel := context.WithCancel(t.Context())
	var honest sync.WaitGroup
	honest.Add(1)
	go func() {
		defer honest.Done()
		honestNeighbour(ctx, t, neighbours)
	}()
	defer honest.Wait()
	defer cancel()
	name := c.Peers[hostilePeers].Name
	eventually(t, "honest session", true, func() any { return s.session(name).Established })
	up := s.session(name).Since

	var sent atomic.Int64
	var all sync.WaitGroup
	end := time.Now().Add(*hostileFor)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for i := range hostilePeers {
		all.Add(1)
		go func() {
			defer all.Done()
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			for time.Now().Before(end) {
				if conn, err := dialFrom(neighbours, fanAddr(i)); err == nil {
					sent.Add(hostile(conn, r, fanAddr(i), end))
				}
			}
		}()
	}
	all.Wait()
	t.Logf("%d messages", sent.Load())

	if got := s.session(name); !got.Established || !got.Since.Equal(up) {
		t.Errorf("honest session %+v, want the one that came up at %s", got, up)
	}
	for prefix, hops := range s.learned() {
		if !strings.HasPrefix(prefix, "20.") {
			t.Errorf("learned %s via %s, which no filter lets in", prefix, hops)
		}
	}
	now, most := resident(t, s.cmd.Process.Pid)
	t.Logf("the speaker takes %.0f MB, took %.0f MB", now, most)
	if most > hostileMB {
		t.Errorf("the speaker takes %.0f MB, took %.0f MB, want at most %d MB", now, most, hostileMB)
	}
}

func dialFrom(ns *kerneltest.Namespace, addr netip.Addr) (conn net.Conn, err error) {
	ns.Do(func() {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: addr.AsSlice()}, Timeout: 2 * time.Second}
		conn, err = d.Dial("tcp", netip.AddrPortFrom(fanRouter, 179).String())
	})
	return conn, err
}

// honestNeighbour is the last of the peers. It calls again when the router, which
// may not have begun with this peer yet, hangs up.
func honestNeighbour(ctx context.Context, t *testing.T, ns *kerneltest.Namespace) {
	greeting := opening(t, fanAddr(hostilePeers))
	for ctx.Err() == nil {
		conn, err := dialFrom(ns, fanAddr(hostilePeers))
		if err != nil {
			continue
		}
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		if _, err := conn.Write(greeting); err == nil {
			go keepAlive(conn)
			io.Copy(io.Discard, conn)
		}
		stop()
		conn.Close()
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// keepAlive gives signs of life until conn is closed.
func keepAlive(conn net.Conn) {
	for range time.Tick(5 * time.Second) {
		if _, err := conn.Write(message(packet.BGP_MSG_KEEPALIVE, nil)); err != nil {
			return
		}
	}
}

// opening is OPEN and KEEPALIVE.
func opening(t testing.TB, id netip.Addr) []byte {
	m, err := packet.NewBGPOpenMessage(hostileAS, 240, id, []packet.OptionParameterInterface{
		packet.NewOptionParameterCapability([]packet.ParameterCapabilityInterface{
			packet.NewCapMultiProtocol(packet.RF_IPv4_UC), packet.NewCapFourOctetASNumber(hostileAS),
		}),
	})
	if err != nil {
		t.Error(err)
		return nil
	}
	b, err := m.Serialize()
	if err != nil {
		t.Error(err)
		return nil
	}
	return append(b, message(packet.BGP_MSG_KEEPALIVE, nil)...)
}

// hostile speaks on conn until it is closed, or for a while. It returns how many
// messages it sent.
func hostile(conn net.Conn, r *rand.Rand, addr netip.Addr, end time.Time) int64 {
	defer conn.Close()
	conn.SetDeadline(end)
	go io.Copy(io.Discard, conn)
	if _, err := conn.Write(opening(nil, addr)); err != nil {
		return 0
	}
	n := int64(0)
	for ; time.Now().Before(end); n++ {
		m := hostileUpdate(r, addr)
		switch r.IntN(40) {
		case 0: // any byte is another one, also of the header
			m[r.IntN(len(m))] = byte(r.Uint32())
		case 1:
			m[18] = byte(r.IntN(8)) // another kind of message
		case 2:
			m = m[:r.IntN(len(m))] // and what follows is read as its end
		}
		if _, err := conn.Write(m); err != nil {
			return n
		}
	}
	return n
}

// hostileUpdate is an UPDATE with a sound frame.
func hostileUpdate(r *rand.Rand, addr netip.Addr) []byte {
	var attrs []byte
	a4 := addr.As4()
	as := binary.BigEndian.AppendUint32([]byte{2, 1}, hostileAS)
	usual := [][]byte{attribute(0x40, 1, []byte{0}), attribute(0x40, 2, as), attribute(0x40, 3, a4[:])}
	for _, u := range usual {
		switch r.IntN(12) {
		case 0: // it is missing
		case 1:
			u[r.IntN(len(u))] = byte(r.Uint32())
			attrs = append(attrs, u...)
		case 2:
			attrs = append(append(attrs, u...), u...) // it is there twice
		default:
			attrs = append(attrs, u...)
		}
	}
	for range r.IntN(4) { // known and unknown ones, with any flags and contents
		body := make([]byte, r.IntN(64))
		for i := range body {
			body[i] = byte(r.Uint32())
		}
		flags := byte(r.Uint32()) &^ 0x10
		attrs = append(attrs, attribute(flags, byte(r.IntN(48)), body)...)
	}
	if r.IntN(50) == 0 { // a path of a thousand ASes
		long := []byte{2, 255}
		for range 255 {
			long = binary.BigEndian.AppendUint32(long, r.Uint32())
		}
		long = append(long, long...)
		attrs = append(append(attrs, 0x50, 2, byte(len(long)>>8), byte(len(long))), long...)
	}
	body := binary.BigEndian.AppendUint16([]byte{0, 0}, uint16(len(attrs)))
	body = append(body, attrs...)
	for range 1 + r.IntN(8) {
		inside := byte(20)
		if r.IntN(2) == 0 {
			inside = byte(r.Uint32())
		}
		bits := byte(24)
		if r.IntN(20) == 0 {
			bits = byte(r.IntN(40)) // longer than an address, too
		}
		body = append(body, bits, inside, byte(r.Uint32()), byte(r.IntN(4)))
	}
	return message(packet.BGP_MSG_UPDATE, body)
}

func attribute(flags, kind byte, body []byte) []byte {
	return append([]byte{flags, kind, byte(len(body))}, body...)
}
