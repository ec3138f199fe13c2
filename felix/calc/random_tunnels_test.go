package calc_test

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
)

// modes are mostly the same three times.
func (d dice) modes(v6 bool) event.PoolModes {
	m := event.PoolModes{Sends: d.mode(v6), Generation: d.Int64N(3)}
	m.Wanted, m.Before = m.Sends, m.Sends
	if d.chance(30) {
		m.Wanted, m.Before = d.mode(v6), d.mode(v6)
	}
	return m
}

func (d dice) mode(v6 bool) desired.Mode {
	m := desired.Mode{Encapsulation: pick(d, desired.Plain, desired.VXLAN, desired.IPIP)}
	if m.Encapsulation == desired.IPIP && v6 {
		m.Encapsulation = desired.VXLAN
	}
	m.CrossSubnet = m.Encapsulation != desired.Plain && d.chance(60)
	return m
}

func (d dice) encryption() event.EncryptionConfiguration {
	return event.EncryptionConfiguration{
		Mode:  sometimes(d, pick(d, event.Disabled, event.Preferred, event.Required)),
		Port4: sometimes(d, pick[uint16](d, 51820, 4500)), Port6: sometimes(d, pick[uint16](d, 51821, 4500)),
		Rotation: sometimes(d, pick(d, 0, time.Hour, time.Hour)), Odd4: sometimes(d, pick[uint16](d, 51822, 4502)),
		Hosts: sometimes(d, d.chance(70)),
	}
}

// ends of WireGuard: now and then two nodes have the same key.
func (d dice) ends() (ends []event.WireGuardEnd) {
	for range d.IntN(4) {
		ends = append(ends, event.WireGuardEnd{EncryptedEnd: d.end(), Port: pick[uint16](d, 51820, 4500)})
	}
	return ends
}

func (d dice) end() desired.EncryptedEnd {
	return desired.EncryptedEnd{Kind: pick(d, desired.WireGuard4, desired.WireGuard4, desired.WireGuard6, desired.WireGuard4Odd, desired.WireGuard6Odd), Key: desired.Key{byte(1 + d.IntN(4))}}
}

// reach is mostly on the link, as far as the kernel is concerned. In between this
// node gets an address inside of a tunnel, or a key.
func (d dice) reach() (string, event.Value) {
	if d.chance(10) {
		turn := &event.Turn{Odd: d.chance(50), Hosts: d.chance(70), Live: map[desired.EncryptedEnd]struct{}{}}
		for range d.IntN(6) {
			turn.Live[d.end()] = struct{}{}
		}
		return "", turn
	}
	if d.chance(20) {
		k := &event.TunnelKey{EncryptedEnd: d.end()}
		return k.Kind.Device(), k
	}
	if d.chance(20) {
		kind := pick(d, desired.TunnelKinds[:]...)
		a := &event.TunnelAddress{Kind: kind, Addr: netip.MustParseAddr(map[bool]string{false: "10.0.1.5", true: "fd00:10::3"}[kind.Is6()])}
		return kind.Device(), a
	}
	r := &event.Reach{Interface: "eth0", MTU: pick(d, 1500, 1500, 9000)}
	var gateway string
	if d.chance(40) {
		r.Addr = netip.MustParseAddr(fmt.Sprintf("fd00:16::%d", d.IntN(5)))
		r.Source, gateway = netip.MustParsePrefix(pick(d, "fd00:16::9/64", "fd00:16::9/64", "fd00:16::9/128")), "fe80::1"
	} else {
		r.Addr = netip.MustParseAddr(fmt.Sprintf("172.16.0.%d", d.IntN(5)))
		r.Source, gateway = netip.MustParsePrefix(pick(d, "172.16.0.9/24", "172.16.0.9/24", "172.16.0.9/32")), "172.16.0.254"
	}
	if d.chance(30) {
		r.Gateway = netip.MustParseAddr(gateway)
	}
	return r.Addr.String(), r
}
