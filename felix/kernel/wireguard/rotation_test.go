package wireguard_test

import (
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/kernel/wireguard"
)

// turns is a Rotation with what it looks at: a node of one other, whose ends are both
// alive, and that has begun long ago.
type turns struct {
	wireguard.Rotation
	ring   *wireguard.Ring
	dir    string
	seen   map[desired.TunnelKind]wireguard.Status
	wanted map[desired.EncryptedEnd]desired.EncryptedPeer
}

const period = time.Hour

// even is when an even turn begins.
var even = time.Unix(0, 0).Add(500_000 * period)

var evenEnd, oddEnd = desired.EncryptedEnd{Kind: desired.WireGuard4, Key: desired.Key{1}}, desired.EncryptedEnd{Kind: desired.WireGuard4Odd, Key: desired.Key{2}}

func newTurns(t *testing.T) *turns {
	dir := t.TempDir()
	s := &turns{ring: ring(t, dir), dir: dir, seen: map[desired.TunnelKind]wireguard.Status{}, wanted: map[desired.EncryptedEnd]desired.EncryptedPeer{}}
	s.made(t, "wireguard.key", even.Add(-period/2))
	s.made(t, "wireguard-odd.key", even.Add(-period*3/2))
	s.at(even.Add(-period))
	return s
}

// made dates a key.
func (s *turns) made(t *testing.T, name string, at time.Time) {
	t.Helper()
	name = filepath.Join(s.dir, name)
	if err := os.Chtimes(name, at, at); err != nil {
		t.Fatal(err)
	}
	s.ring = ring(t, s.dir)
}

// at looks, with a handshake a minute old in both ends and some bytes more.
func (s *turns) at(now time.Time) wireguard.Turn {
	odd := now.Sub(even)/period%2 == 1
	for _, end := range []desired.EncryptedEnd{evenEnd, oddEnd} {
		s.wanted[end] = desired.EncryptedPeer{Endpoint: netip.MustParseAddrPort("192.0.2.2:1"), Idle: end.Kind.Odd() != odd}
		p := s.seen[end.Kind].Peers[end.Key]
		p.Handshake, p.Received = now.Add(-time.Minute), p.Received+500
		s.seen[end.Kind] = wireguard.Status{Peers: map[desired.Key]wireguard.Peer{end.Key: p}}
	}
	return s.look(now)
}

func (s *turns) look(now time.Time) wireguard.Turn {
	return s.Look(now, period, s.seen, s.wanted, s.ring)
}

// silent is an end without handshake for too long.
func (s *turns) silent(end desired.EncryptedEnd, now time.Time) {
	s.seen[end.Kind].Peers[end.Key] = wireguard.Peer{Handshake: now.Add(-4 * time.Minute)}
}

func TestAKeyIsRenewedOnceInTheMiddleOfTheOthersTurn(t *testing.T) {
	for name, c := range map[string]struct {
		at         time.Duration
		odd, renew bool
	}{
		"the turn has just begun":           {0, false, false},
		"before the middle":                 {period/2 - 1, false, false},
		"in the middle":                     {period / 2, false, true},
		"late":                              {period*3/4 - 1, false, true},
		"too late for all to hear":          {period * 3 / 4, false, false},
		"in the middle of the next":         {period * 3 / 2, true, true},
		"in the middle of the one after it": {period * 5 / 2, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTurns(t)
			turn := s.at(even.Add(c.at))
			if turn.Odd != c.odd || turn.Renew != c.renew || len(turn.Held) > 0 {
				t.Errorf("%+v, want odd %v, renew %v", turn, c.odd, c.renew)
			}
			if want := []desired.EncryptedEnd{evenEnd, oddEnd}; len(turn.Live) != len(want) {
				t.Errorf("live are %v, want %v", slices.Collect(maps.Keys(turn.Live)), want)
			}
			if !turn.Renew {
				return
			}
			s.made(t, map[bool]string{false: "wireguard-odd.key", true: "wireguard.key"}[turn.Odd], even.Add(c.at))
			if again := s.at(even.Add(c.at + time.Second)); again.Renew {
				t.Error("it is renewed twice")
			}
		})
	}
}

func TestWhoHasJustBegunRenewsNothing(t *testing.T) {
	s := newTurns(t)
	s.Rotation = wireguard.Rotation{}
	s.at(even.Add(period / 2))
	if s.at(even.Add(period*3/4 - 1)).Renew {
		t.Error("a key is renewed before others had time to follow another period")
	}
}

// TestAKeyFromTheFutureIsRenewed: the clock was wrong when it was made.
func TestAKeyFromTheFutureIsRenewed(t *testing.T) {
	s := newTurns(t)
	s.made(t, "wireguard-odd.key", even.Add(1000*period))
	if !s.at(even.Add(period / 2)).Renew {
		t.Error("it stays")
	}
}

// TestAKeyWaitsForThoseWhoSendByItAlone: but for nobody who is gone.
func TestAKeyWaitsForThoseWhoSendByItAlone(t *testing.T) {
	now := even.Add(period / 2)
	for name, c := range map[string]struct {
		breaks func(s *turns)
		held   bool
	}{
		"this node sends by it": {func(s *turns) {
			s.wanted[oddEnd] = desired.EncryptedPeer{Endpoint: s.wanted[oddEnd].Endpoint}
		}, true},
		"the other end does not answer": {func(s *turns) { s.silent(evenEnd, now) }, true},
		"there is no other end":         {func(s *turns) { delete(s.wanted, evenEnd) }, true},
		"packets come by it": {func(s *turns) {
			s.seen[oddEnd.Kind].Peers[oddEnd.Key] = wireguard.Peer{Handshake: now, Received: 10_000}
		}, true},
		"the node is gone":         {func(s *turns) { s.silent(evenEnd, now); s.silent(oddEnd, now) }, false},
		"its end has lost the key": {func(s *turns) { s.silent(oddEnd, now) }, false},
		"another node has no second end": {func(s *turns) {
			s.wanted[desired.EncryptedEnd{Kind: desired.WireGuard4, Key: desired.Key{3}}] = desired.EncryptedPeer{}
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTurns(t)
			s.at(now)
			c.breaks(s)
			turn := s.look(now)
			if held := len(turn.Held) == 1 && turn.Held[0] == oddEnd; held != c.held || turn.Renew == c.held {
				t.Errorf("%+v, want it held: %v", turn, c.held)
			}
		})
	}
}

// both adds the node's second end, and what it knows of the second ends of others.
func (s *site) both(first desired.Delta, odd bool, others ...*site) desired.Delta {
	second := s.kind + (desired.WireGuard4Odd - desired.WireGuard4)
	key := func(o *site) desired.Key { k, _ := o.ring.Key(second); return k }
	d := *first.Tunnels[s.kind]
	d.Kind, d.Key, d.Port = second, key(s), port+2
	first.Tunnels[second] = &d
	for _, o := range others {
		p := first.EncryptedPeers[desired.EncryptedEnd{Kind: s.kind, Key: o.key()}]
		other := *p
		other.Endpoint = netip.AddrPortFrom(o.underlay, port+2)
		p.Idle, other.Idle = odd, !odd
		first.EncryptedPeers[desired.EncryptedEnd{Kind: second, Key: key(o)}] = &other
	}
	return first
}

// TestKeysTakeTurnsWithoutLoss: between two nodes that send to each other all the time,
// in both directions, and to each other's own addresses.
func TestKeysTakeTurnsWithoutLoss(t *testing.T) {
	bothFamilies(t, func(t *testing.T, kind desired.TunnelKind) {
		wire, all := sites(t, kind, 2)
		second := kind + (desired.WireGuard4Odd - desired.WireGuard4)
		tap := listen(t, wire, port, port+2)
		tell := func(odd bool) {
			for _, s := range all {
				s.apply(t, s.both(s.knowsAll(s.own(), s.others(all)...), odd, s.others(all)...))
			}
		}
		into := func(odd bool) {
			tell(odd)
			for _, s := range all {
				s.Run("ip", "route", "replace", s.others(all)[0].block.String(), "dev", map[bool]desired.TunnelKind{false: kind, true: second}[odd].Device())
			}
		}
		live := func(kind desired.TunnelKind) {
			kerneltest.Eventually(t, "both have shaken hands through "+kind.Device(), func() bool {
				for _, s := range all {
					status, err := s.tunnels.Status()
					key, _ := s.others(all)[0].ring.Key(kind)
					if err != nil || status[kind].Peers[key].Handshake.IsZero() {
						return false
					}
				}
				return true
			})
		}
		into(false)
		for _, s := range all {
			pod := s.inside.Next()
			s.Run("ip", "addr", "add", pod.String(), "dev", "lo", "nodad")
			s.Run("ip", map[bool]string{false: "-4", true: "-6"}[kind.Is6()], "rule", "add", "from", pod.String(), "lookup", "11210", "priority", "11210")
		}
		live(kind)
		live(second)
		reach := func() {
			for _, s := range all {
				s.reaches(t, s.others(all)[0])
			}
		}
		reach()

		var ends []func() (int, int)
		for _, s := range all {
			ends = append(ends, s.flow(t, s.others(all)[0].inside), s.flow(t, s.others(all)[0].underlay, "-I", s.inside.Next().String()))
		}
		for turn := range 4 {
			odd := turn%2 == 1
			into(odd)
			renewed := second
			if odd {
				renewed = kind
			}
			kerneltest.Eventually(t, "nothing is on its way through "+renewed.Device()+" any more", func() bool {
				was := carried(t, all, renewed)
				reach()
				return slices.Equal(was, carried(t, all, renewed))
			})
			before := map[*site]desired.Delta{}
			for _, s := range all {
				before[s] = s.both(s.knowsAll(s.own(), s.others(all)...), odd, s.others(all)...)
			}
			for _, s := range all {
				if err := s.ring.Renew(renewed); err != nil {
					t.Fatal(err)
				}
			}
			for _, s := range all {
				now := s.both(s.knowsAll(s.own(), s.others(all)...), odd, s.others(all)...)
				for end := range before[s].EncryptedPeers {
					if end.Kind == renewed {
						now.EncryptedPeers[end] = nil
					}
				}
				s.apply(t, now)
			}
			live(renewed)
			if is, err := all[0].isOdd(); err != nil || is != odd {
				t.Errorf("packets take the second end: %v, %v; want %v", is, err, odd)
			}
		}
		for _, end := range ends {
			if sent, answered := end(); sent != answered || sent != 300 {
				t.Errorf("%d of %d packets were answered", answered, sent)
			}
		}
		tap.check(t)
	})
}

// carried is how many bytes each node sent and received through an end.
func carried(t *testing.T, all []*site, kind desired.TunnelKind) (bytes []uint64) {
	t.Helper()
	for _, s := range all {
		status, err := s.tunnels.Status()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range status[kind].Peers { // one
			bytes = append(bytes, p.Sent, p.Received)
		}
	}
	return bytes
}

func (s *site) isOdd() (odd bool, err error) {
	left, err := s.look(time.Now())
	return left.Odd, err
}
