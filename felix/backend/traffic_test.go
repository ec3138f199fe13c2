package backend_test

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
)

// traffic of one family goes on while data planes change: friend talks to server
// over one TCP connection and in datagrams without a pause and opens new connections,
// stranger tries by TCP and UDP.
type traffic struct {
	*testing.T
	friend                netip.Addr
	echoes, calls, probes atomic.Int64
	stop                  chan struct{}
	done                  sync.WaitGroup
}

const (
	port     = 7777
	datagram = 7778 // to which friend sends
)

// patience is for what arrives late on a busy machine, but arrives.
const patience = 30 * time.Second

// in runs f on a thread in the namespace of a pod: sockets stay where they are made.
func in[V any](n *node, pod string, f func() (V, error)) V {
	n.Helper()
	var v V
	var err error
	n.pods[pod].Do(func() { v, err = f() })
	if err != nil {
		n.Fatalf("in pod %s: %v", pod, err)
	}
	return v
}

// begin begins the traffic of both families.
func begin(n *node) [2]*traffic {
	n.Helper()
	return [2]*traffic{beginOf(n, 0), beginOf(n, 1)}
}

// beginOf begins that of one, by its place among the addresses of pods.
func beginOf(n *node, family int) *traffic {
	n.Helper()
	x := &traffic{T: n.T, friend: pods["friend"][family], stop: make(chan struct{})}
	server := netip.AddrPortFrom(pods["server"][family], port)
	listener := in(n, "server", func() (net.Listener, error) { return net.Listen("tcp", server.String()) })
	packets := in(n, "server", func() (net.PacketConn, error) { return net.ListenPacket("udp", server.String()) })
	echoed := netip.AddrPortFrom(server.Addr(), datagram)
	mirror := in(n, "server", func() (net.PacketConn, error) { return net.ListenPacket("udp", echoed.String()) })
	stranger := in(n, "stranger", func() (net.Conn, error) { return net.Dial("udp", server.String()) })
	n.Cleanup(func() { listener.Close(); packets.Close(); mirror.Close(); stranger.Close() })
	x.done.Go(func() { x.serve(listener) })
	x.done.Go(func() { x.overhear(packets) })
	x.done.Go(func() { reflect(mirror) })
	flow := in(n, "friend", func() (net.Conn, error) { return net.Dial("tcp", server.String()) })
	datagrams := in(n, "friend", func() (net.Conn, error) { return net.Dial("udp", echoed.String()) })
	x.done.Go(func() { x.echo(flow) })
	x.done.Go(func() { x.echo(datagrams) })
	x.done.Go(func() { x.probe(stranger) })
	x.done.Go(func() { x.call(n, "friend", server, true) })
	x.done.Go(func() { x.call(n, "stranger", server, false) })
	n.Cleanup(func() {
		close(x.stop)
		flow.Close()
		datagrams.Close()
		listener.Close()
		packets.Close()
		mirror.Close()
		x.done.Wait()
		n.Logf("%d echoes, %d calls, %d probes", x.echoes.Load(), x.calls.Load(), x.probes.Load())
	})
	return x
}

func (x *traffic) ended() bool {
	select {
	case <-x.stop:
		return true
	default:
		return false
	}
}

// serve echoes.
func (x *traffic) serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		if from := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr(); from != x.friend {
			x.Errorf("%s got in by TCP", from)
		}
		x.done.Go(func() {
			defer c.Close()
			for b := make([]byte, 64); ; {
				k, err := c.Read(b)
				if err != nil {
					return
				}
				if _, err := c.Write(b[:k]); err != nil {
					return
				}
			}
		})
	}
}

// overhear receives what must not arrive.
func (x *traffic) overhear(c net.PacketConn) {
	for b := make([]byte, 64); ; {
		_, from, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		x.Errorf("a packet of %s got in", from)
	}
}

// reflect sends datagrams back.
func reflect(c net.PacketConn) {
	for b := make([]byte, 64); ; {
		k, from, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		_, _ = c.WriteTo(b[:k], from)
	}
}

// echo needs an answer to each message. What is lost TCP sends again after 0.2 s; a
// datagram that is lost is lost.
func (x *traffic) echo(c net.Conn) {
	defer c.Close()
	for b := make([]byte, 64); !x.ended(); {
		_ = c.SetDeadline(time.Now().Add(patience))
		_, err := c.Write([]byte("hello"))
		if err == nil {
			_, err = c.Read(b)
		}
		if err != nil && !x.ended() {
			x.Errorf("what friend says by %s: %v", c.RemoteAddr().Network(), err)
			return
		}
		x.echoes.Add(1)
	}
}

// probe sends packets that must not arrive.
func (x *traffic) probe(c net.Conn) {
	for tick := time.NewTicker(200 * time.Microsecond); !x.ended(); <-tick.C {
		if _, err := c.Write([]byte("let me in")); err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			x.probes.Add(1)
		}
	}
}

// call opens connections, which must succeed or must not. A SYN that is lost is
// sent again after a second.
func (x *traffic) call(n *node, pod string, server netip.AddrPort, may bool) {
	wait := patience
	if !may {
		wait = 20 * time.Millisecond
	}
	for !x.ended() {
		var c net.Conn
		var err error
		n.pods[pod].Do(func() { c, err = net.DialTimeout("tcp", server.String(), wait) })
		if err == nil {
			c.Close()
		}
		if (err == nil) != may && !x.ended() {
			x.Errorf("a call by %s: %v", pod, err)
		}
		x.calls.Add(1)
	}
}

// progress waits until the traffic of both families has gone on for a while.
func progress(both [2]*traffic) {
	for _, x := range both {
		x.Helper()
		x.progress()
	}
}

func (x *traffic) progress() {
	x.Helper()
	echoes, calls, probes := x.echoes.Load(), x.calls.Load(), x.probes.Load()
	kerneltest.Eventually(x, "traffic goes on", func() bool {
		return x.echoes.Load() > echoes+100 && x.calls.Load() > calls+20 && x.probes.Load() > probes+100
	})
}

func TestASwitchUnderTrafficLetsNothingInAndCutsNothing(t *testing.T) {
	n := newNode(t)
	n.start()
	n.ask(desired.IPTables, desired.NFTFlavour)
	n.inForce(desired.IPTables, "ipset", "xt-nft")
	x := begin(n)
	for range 5 {
		for _, to := range []struct {
			backend desired.Backend
			flavour desired.Flavour
			traces  []string
		}{
			{desired.NFTables, desired.NFTFlavour, []string{"nft"}},
			{desired.IPTables, desired.LegacyFlavour, []string{"ipset", "xt-old"}},
			{desired.NFTables, desired.LegacyFlavour, []string{"nft"}},
			{desired.IPTables, desired.NFTFlavour, []string{"ipset", "xt-nft"}},
		} {
			progress(x)
			asked := time.Now()
			n.ask(to.backend, to.flavour)
			n.inForce(to.backend, to.traces...)
			t.Logf("%v in force, alone, after %s", to.traces, time.Since(asked).Round(time.Millisecond))
		}
	}
}

// TestASwitchThatIsKilledLetsNothingIn kills the process at a random moment of a
// switch, and starts it again. Switching may fail halfway; the rest of it happens
// after the restart.
func TestASwitchThatIsKilledLetsNothingIn(t *testing.T) {
	n := newNode(t)
	n.start()
	n.ask(desired.IPTables, desired.NFTFlavour)
	n.inForce(desired.IPTables, "ipset", "xt-nft")
	x := begin(n)
	wanted := map[bool]desired.Backend{true: desired.NFTables, false: desired.IPTables}
	for i := range 20 {
		b := wanted[i%2 == 0]
		n.ask(b, desired.NFTFlavour)
		time.Sleep(rand.N(40 * time.Millisecond)) // the moment of the kill
		n.kill()
		n.start()
		n.ask(b, desired.NFTFlavour)
		if b == desired.NFTables {
			n.inForce(b, "nft")
		} else {
			n.inForce(b, "ipset", "xt-nft")
		}
		progress(x)
	}
}
