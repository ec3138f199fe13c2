package bfd_test

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/koratnet/korat/bgp/bfd"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
)

// node is a System in a namespace, and what it told.
type node struct {
	*bfd.System
	t  *testing.T
	ns *kerneltest.Namespace

	mu   sync.Mutex // guards told
	told []bfd.Change
}

func newNode(t *testing.T, ns *kerneltest.Namespace) *node {
	n := &node{t: t, ns: ns}
	n.System = bfd.New(bfd.Config{Changed: func(c bfd.Change) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.told = append(n.told, c)
	}})
	t.Cleanup(func() { n.Close() })
	return n
}

// set is Set in the namespace: sockets belong to that of the thread that opens them.
func (n *node) set(sessions ...bfd.Session) {
	n.t.Helper()
	n.ns.Do(func() {
		if err := n.Set(n.t.Context(), sessions); err != nil {
			n.t.Errorf("set: %v", err)
		}
	})
}

func (n *node) changes() []bfd.Change {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := n.told
	n.told = nil
	return out
}

// reaches waits until the only session has a state.
func (n *node) reaches(want bfd.State) bfd.Status {
	n.t.Helper()
	var last bfd.Status
	kerneltest.Eventually(n.t, fmt.Sprint("session is ", want), func() bool {
		for _, s := range n.States() {
			last = s
		}
		return last.State == want
	})
	return last
}

// hears waits for a change to a state.
func (n *node) hears(want bfd.State) bfd.Change {
	n.t.Helper()
	var got bfd.Change
	kerneltest.Eventually(n.t, fmt.Sprint("change to ", want), func() bool {
		for _, c := range n.changes() {
			got = c
			if c.State == want {
				return true
			}
		}
		return false
	})
	return got
}

// lasting is a Timing that a busy machine keeps: tests of failures make the
// neighbour silent for good, and wait.
var lasting = bfd.Timing{Transmit: 300 * time.Millisecond, Receive: 300 * time.Millisecond, Multiplier: 20}

// fast is Timing of one whose neighbour is lasting, and notices its silence late.
var fast = bfd.Timing{Transmit: 50 * time.Millisecond, Receive: 50 * time.Millisecond, Multiplier: 40}

func key(peer, local string) bfd.Key {
	return bfd.Key{Peer: netip.MustParseAddr(peer), Local: netip.MustParseAddr(local)}
}

// two joins two namespaces by a link named "wire".
func two(t *testing.T) (a, b *kerneltest.Namespace) {
	t.Helper()
	a, b = kerneltest.New(t), kerneltest.New(t)
	join(a, b, "wire", "192.0.2.1/24", "192.0.2.2/24")
	for ns, addr := range map[*kerneltest.Namespace]string{a: "fe80::1/64", b: "fe80::2/64"} {
		ns.Run("ip", "addr", "add", addr, "dev", "wire", "nodad")
	}
	return a, b
}

func join(a, b *kerneltest.Namespace, link, addrA, addrB string) {
	kerneltest.Veth(a, link, b, link)
	for ns, addr := range map[*kerneltest.Namespace]string{a: addrA, b: addrB} {
		ns.Run("sysctl", "-qw", "net.ipv6.conf."+link+".accept_dad=0")
		ns.Run("ip", "addr", "add", addr, "dev", link)
		ns.Up(link)
	}
}

func TestTwoSystemsFindEachOtherAndNoticeSilence(t *testing.T) {
	for name, c := range map[string][2]bfd.Key{
		"IPv4":               {key("192.0.2.2", "192.0.2.1"), key("192.0.2.1", "192.0.2.2")},
		"link-local":         {key("fe80::2%wire", "fe80::1%wire"), key("fe80::1%wire", "fe80::2%wire")},
		"our address chosen": {{Peer: netip.MustParseAddr("192.0.2.2")}, key("192.0.2.1", "192.0.2.2")},
	} {
		t.Run(name, func(t *testing.T) {
			nsA, nsB := two(t)
			a, b := newNode(t, nsA), newNode(t, nsB)
			a.set(bfd.Session{Key: c[0], Timing: fast})
			b.set(bfd.Session{Key: c[1], Timing: lasting})
			b.reaches(bfd.Up)
			a.hears(bfd.Up)
			kerneltest.Eventually(t, "timers as agreed", func() bool {
				s := a.States()[0]
				return s.Interval == 300*time.Millisecond && s.Detection == 20*300*time.Millisecond
			})
			b.ns.Down("wire")
			if got := a.hears(bfd.Down); !got.Lost || got.Diag != bfd.TimeExpired {
				t.Errorf("change %+v", got)
			}
		})
	}
}

func TestAnOrderlyEndIsNoFailure(t *testing.T) {
	nsA, nsB := two(t)
	a, b := newNode(t, nsA), newNode(t, nsB)
	one := bfd.Session{Key: key("192.0.2.2", "192.0.2.1"), Timing: lasting}
	a.set(one)
	b.set(bfd.Session{Key: key("192.0.2.1", "192.0.2.2"), Timing: lasting})
	for name, end := range map[string]func(){
		"no session is wanted": func() { a.set() },
		"the process ends":     func() { a.Close() },
	} {
		a.reaches(bfd.Up)
		b.hears(bfd.Up)
		end()
		if got := b.hears(bfd.Down); got.Lost || got.RemoteState != bfd.AdminDown || got.Diag != bfd.NeighborDown {
			t.Errorf("%s: the neighbour heard %+v", name, got)
		}
		a = newNode(t, nsA)
		kerneltest.Eventually(t, "port is free", func() (ok bool) {
			nsA.Do(func() { ok = a.Set(t.Context(), []bfd.Session{one}) == nil })
			return ok
		})
	}
}

func TestTimingChangesWhileASessionIsUp(t *testing.T) {
	nsA, nsB := two(t)
	a, b := newNode(t, nsA), newNode(t, nsB)
	one := bfd.Session{Key: key("192.0.2.2", "192.0.2.1"), Timing: lasting}
	a.set(one)
	b.set(bfd.Session{Key: key("192.0.2.1", "192.0.2.2"), Timing: lasting})
	up := a.reaches(bfd.Up)
	b.reaches(bfd.Up)
	one.Timing = bfd.Timing{Transmit: 400 * time.Millisecond, Receive: 200 * time.Millisecond, Multiplier: 30}
	a.set(one)
	kerneltest.Eventually(t, "new timers on both sides", func() bool {
		return a.States()[0].Interval == 400*time.Millisecond && b.States()[0].Detection == 30*400*time.Millisecond
	})
	if now := a.States()[0]; now.State != bfd.Up || !now.Since.Equal(up.Since) {
		t.Errorf("was %+v, is %+v", up, now)
	}
}

func TestOverRoutersPacketsMayBeOlder(t *testing.T) {
	nsA, router, nsB := kerneltest.New(t), kerneltest.New(t), kerneltest.New(t)
	join(nsA, router, "a", "192.0.2.1/24", "192.0.2.254/24")
	join(nsB, router, "b", "198.51.100.1/24", "198.51.100.254/24")
	router.Run("sysctl", "-qw", "net.ipv4.ip_forward=1")
	nsA.Run("ip", "route", "add", "default", "via", "192.0.2.254")
	nsB.Run("ip", "route", "add", "default", "via", "198.51.100.254")
	a, b := newNode(t, nsA), newNode(t, nsB)
	there := bfd.Session{Key: bfd.Key{Peer: netip.MustParseAddr("198.51.100.1"), Local: netip.MustParseAddr("192.0.2.1"), Multihop: true}, Timing: lasting}
	back := bfd.Session{Key: bfd.Key{Peer: netip.MustParseAddr("192.0.2.1"), Local: netip.MustParseAddr("198.51.100.1"), Multihop: true}, Timing: lasting}
	there.MinTTL, back.MinTTL = 254, 254
	a.set(there)
	b.set(back)
	a.reaches(bfd.Up)
	b.reaches(bfd.Up)
	// One router is one too many now: a hears nothing any more.
	there.MinTTL = 255
	there.Timing.Multiplier = 3
	a.set(there)
	if got := a.reaches(bfd.Down); got.Diag != bfd.TimeExpired {
		t.Errorf("down by %s", got.Diag)
	}
}

// attack sends a packet from a namespace to a port of BFD.
func attack(t *testing.T, ns *kerneltest.Namespace, from, to string, ttl int, payloads ...[]byte) {
	t.Helper()
	ns.Do(func() {
		d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.MustParseAddrPort(from))}
		c, err := d.Dial("udp", to)
		if err != nil {
			t.Errorf("dial: %v", err)
			return
		}
		defer c.Close()
		if err := setTTL(c.(*net.UDPConn), ttl); err != nil {
			t.Errorf("ttl: %v", err)
		}
		for _, p := range payloads {
			_, _ = c.Write(p) // refused is fine
		}
	})
}

func TestHostilePacketsChangeNothing(t *testing.T) {
	nsA, nsB := two(t)
	nsB.Run("ip", "addr", "add", "192.0.2.66/24", "dev", "wire")
	a, b := newNode(t, nsA), newNode(t, nsB)
	a.set(bfd.Session{Key: key("192.0.2.2", "192.0.2.1"), Timing: lasting})
	b.set(bfd.Session{Key: key("192.0.2.1", "192.0.2.2"), Timing: lasting})
	a.reaches(bfd.Up)
	b.reaches(bfd.Up)
	a.hears(bfd.Up)
	const port = "192.0.2.1:3784"
	down := bfd.Packet{State: bfd.Down, Multiplier: 1, Mine: 5, DesiredTx: time.Second, RequiredRx: time.Second}
	wrong := down
	wrong.State, wrong.Yours = bfd.AdminDown, 12345
	sent := nsA.Link("wire").Attrs().Statistics.TxPackets
	begin := time.Now()
	var flood [][]byte
	for i := range 20_000 {
		wrong.Yours = uint32(i)*214_013 + 1
		flood = append(flood, wrong.Append(nil), wrong.Append(nil)[:20])
	}
	// From one who is not the neighbour; of unknown sessions; over a router.
	attack(t, nsB, "192.0.2.66:50000", port, 255, append(flood, down.Append(nil))...)
	attack(t, nsB, "192.0.2.2:50001", port, 255, flood...)
	attack(t, nsB, "192.0.2.2:50001", port, 254, down.Append(nil), down.Append(nil))
	if got := a.changes(); len(got) > 0 {
		t.Errorf("changes %+v", got)
	}
	a.reaches(bfd.Up)
	// Each of the two sends at most five packets a second.
	most := uint64(time.Since(begin)/(200*time.Millisecond)) + 20
	if n := nsA.Link("wire").Attrs().Statistics.TxPackets - sent; n > most {
		t.Errorf("%d packets were sent, at most %d are due", n, most)
	}
	// From the neighbour, who restarted. The flood may still fill the socket.
	var got bfd.Change
	kerneltest.Eventually(t, "change", func() bool {
		attack(t, nsB, "192.0.2.2:50001", port, 255, down.Append(nil))
		for _, got = range a.changes() {
			return true
		}
		return false
	})
	if !got.Lost {
		t.Errorf("change %+v", got)
	}
}

func TestSessionsThatCannotBeAreNamed(t *testing.T) {
	ns := kerneltest.New(t)
	n := newNode(t, ns)
	good := bfd.Session{Key: key("127.0.0.2", "127.0.0.1"), Timing: lasting}
	for name, bad := range map[string]bfd.Session{
		"no neighbour":    {Timing: lasting},
		"families differ": {Key: key("2001:db8::1", "127.0.0.1"), Timing: lasting},
		"no multiplier":   {Key: good.Key, Timing: bfd.Timing{Transmit: time.Second, Receive: time.Second}},
		"too fast":        {Key: good.Key, Timing: bfd.Timing{Transmit: time.Millisecond, Receive: time.Second, Multiplier: 3}},
	} {
		t.Run(name, func(t *testing.T) {
			ns.Do(func() {
				if err := n.Set(t.Context(), []bfd.Session{bad, {Key: key("127.0.0.3", "127.0.0.1"), Timing: lasting}}); err == nil {
					t.Error("no error")
				}
			})
			if got := n.States(); len(got) != 1 || got[0].Peer.String() != "127.0.0.3" {
				t.Errorf("sessions %+v", got)
			}
		})
	}
	t.Run("port in use", func(t *testing.T) {
		o := newNode(t, ns)
		ns.Do(func() {
			if err := o.Set(t.Context(), []bfd.Session{good}); err == nil {
				t.Error("no error")
			}
		})
	})
}
