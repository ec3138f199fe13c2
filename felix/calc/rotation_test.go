package calc_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
)

// TestPacketsTakeTheEndWhoseTurnItIs: from turn to turn, for pods and for the node itself,
// once it is proved to work, and as long as the other node has it.
func TestPacketsTakeTheEndWhoseTurnItIs(t *testing.T) {
	own := func(kind desired.TunnelKind, key byte) event.Event {
		return event.Set(kind.Device(), &event.TunnelKey{EncryptedEnd: desired.EncryptedEnd{Kind: kind, Key: desired.Key{key}}})
	}
	even := desired.EncryptedEnd{Kind: desired.WireGuard4, Key: desired.Key{3}}
	odd := desired.EncryptedEnd{Kind: desired.WireGuard4Odd, Key: desired.Key{4}}
	other := func(ends ...desired.EncryptedEnd) event.Event {
		n := &event.NodeNetwork{Name: "other"}
		for _, e := range ends {
			n.WireGuard = append(n.WireGuard, event.WireGuardEnd{EncryptedEnd: e, Port: 1})
		}
		return event.Set("other", n)
	}
	turn := func(odd bool, live ...desired.EncryptedEnd) event.Event {
		all := map[desired.EncryptedEnd]struct{}{}
		for _, e := range live {
			all[e] = struct{}{}
		}
		return event.Set("", &event.Turn{Odd: odd, Live: all})
	}
	rotate := func(period time.Duration) event.Event {
		return configure("default", func(c *event.NodeConfiguration) {
			mode := event.Required
			c.Encryption.Mode, c.Encryption.Rotation = &mode, &period
		})
	}
	r := ready(t, self("", "172.16.0.1"), node("other", "", "172.16.0.2"), pool("10.0.0.0/16"), block("10.0.1.0/26", "other"),
		own(desired.WireGuard4, 1), own(desired.WireGuard4Odd, 2), other(even, odd), rotate(time.Hour))
	renewed := desired.EncryptedEnd{Kind: desired.WireGuard4, Key: desired.Key{5}}
	for i, step := range []struct {
		tell event.Event
		want desired.EncryptedEnd
	}{
		{turn(false, even, odd), even},
		{turn(true, even, odd), odd},
		{turn(false, even, odd), even},
		{turn(true, even), even}, // the other is not proved
		{turn(true, even, odd), odd},
		{other(renewed, odd), odd},
		{turn(false, odd), odd}, // the new one is not
		{turn(false, renewed, odd), renewed},
		{turn(true, renewed, odd), odd},
		{other(renewed), renewed},
		{other(renewed, odd), odd},
		{turn(true), odd}, // nothing is proved: the clock decides
		{turn(false), renewed},
		{turn(true), odd},
		{rotate(0), renewed},
		{rotate(time.Hour), odd},
	} {
		r.tell(step.tell)
		if got := r.world.Routes[netip.MustParsePrefix("10.0.1.0/26")].Interface; got != step.want.Kind.Device() {
			t.Errorf("step %d: packets take %q, want %s", i, got, step.want.Kind)
		}
		for end, p := range r.world.Encrypted {
			if p.Idle == (end == step.want) {
				t.Errorf("step %d: %s %s: idle is %v", i, end.Kind, end.Key, p.Idle)
			}
		}
	}
}
