package calc_test

import (
	"net/netip"
	"testing"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/policy"
)

// TestTheNodeItselfSendsEncryptedToWhoIsProvedToBeReached, where that is asked for and
// nothing speaks against it, by the end that packets of pods take.
func TestTheNodeItselfSendsEncryptedToWhoIsProvedToBeReached(t *testing.T) {
	end := desired.EncryptedEnd{Kind: desired.WireGuard4, Key: desired.Key{3}}
	ask := func(mode event.Encryption, hosts bool) event.Event {
		return configure("default", func(c *event.NodeConfiguration) { c.Encryption.Mode, c.Encryption.Hosts = &mode, &hosts })
	}
	turn := func(hosts bool, live ...desired.EncryptedEnd) event.Event {
		all := map[desired.EncryptedEnd]struct{}{}
		for _, e := range live {
			all[e] = struct{}{}
		}
		return event.Set("", &event.Turn{Live: all, Hosts: hosts})
	}
	r := ready(t, self("", "172.16.0.1"), node("other", "", "172.16.0.2"), pool("10.0.0.0/16"), block("10.0.1.0/26", "other"),
		event.Set("wg4-korat", &event.TunnelKey{EncryptedEnd: desired.EncryptedEnd{Kind: desired.WireGuard4, Key: desired.Key{1}}}),
		event.Set("other", &event.NodeNetwork{Name: "other", WireGuard: []event.WireGuardEnd{{EncryptedEnd: end, Port: 1}}}))
	own := desired.Rule{Priority: desired.HostRule, From: netip.MustParsePrefix("172.16.0.1/32"), Local: true, Table: desired.HostTable}
	for i, step := range []struct {
		tell        event.Event
		rule, takes bool
	}{
		{ask(event.Preferred, false), false, false},
		{turn(true, end), false, false},
		{ask(event.Preferred, true), true, true},
		{turn(true), true, false},
		{turn(true, end), true, true},
		{turn(false, end), true, false},
		{turn(true, end), true, true},
		{ask(event.Required, true), true, true},
		{ask(event.Disabled, true), false, false},
		{ask(event.Preferred, true), true, true},
		{self("", "172.16.0.9"), false, true}, // another address has another rule
		{self("", "172.16.0.1"), true, true},
		{ask(event.Preferred, false), false, false},
	} {
		r.tell(step.tell)
		if _, ruled := r.world.Rules[own]; ruled != step.rule {
			t.Errorf("step %d: rules are %v", i, r.world.Rules)
		}
		if got := r.world.Encrypted[end].Host; got != step.takes {
			t.Errorf("step %d: the other node takes what this one sends: %v", i, got)
		}
	}
}

// TestWhatIsEncryptedIsOfTheHostEndpointOfItsWire: but for what the node passes on, and
// not where the tunnel has one of its own.
func TestWhatIsEncryptedIsOfTheHostEndpointOfItsWire(t *testing.T) {
	host := func(name, iface string) event.Event {
		return event.Set(name, &event.HostEndpoint{HostEndpoint: policy.HostEndpoint{Name: name, Node: "me", Interface: iface}})
	}
	mode := event.Preferred
	link := event.Set("eth0", &event.LocalInterface{Name: "eth0", Addrs: addrs("172.16.0.1")})
	r := ready(t, self("", "172.16.0.1"), pool("10.0.0.0/16"), link, host("wire", "eth0"), host("further", "eth1"),
		configure("default", func(c *event.NodeConfiguration) { c.Encryption.Mode = &mode }))
	stands := func(want string) {
		t.Helper()
		if got := r.world.Hosts["wg4-korat"].Name; got != want {
			t.Errorf("for the tunnel stands %q, want %q", got, want)
		}
	}
	stands("")
	r.tell(event.Set("wg4-korat", &event.TunnelKey{EncryptedEnd: desired.EncryptedEnd{Kind: desired.WireGuard4, Key: desired.Key{1}}}))
	stands("wire")
	if h := r.world.Hosts["wg4-korat"]; h.Interface != "wg4-korat" || h.Forward.Ingress.Default != policy.Allow || h.Normal.Ingress.Default != policy.Deny {
		t.Errorf("it is %+v", h)
	}
	r.tell(gone(host("wire", "")))
	stands("")
	r.tell(event.Set("172.16.0.2", &event.Reach{Addr: netip.MustParseAddr("172.16.0.2"), Interface: "eth1"}))
	stands("further")
	r.tell(host("wire", "eth0"), host("inside", "wg4-korat"))
	stands("inside")
	r.tell(gone(host("inside", "")))
	stands("further") // of two the first by name
	mode = event.Disabled
	r.tell(gone(event.Set("wg4-korat", &event.TunnelKey{})))
	stands("")
}
