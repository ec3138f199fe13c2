package iptables

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// guarded is open, and has a host endpoint on the way to "outside" that change
// fills in. Its node is closed but for the failsafes and what change allows.
func (w *world) guarded(iface string, change func(h *desired.HostEndpoint, d desired.Delta)) desired.Delta {
	d := w.open()
	d.Programs = map[ir.ProgramID]*ir.Program{}
	open := ir.Chain{Default: policy.Allow}
	h := &desired.HostEndpoint{
		Name: "uplink", Interface: iface,
		Normal:    desired.Chains{Ingress: ir.Chain{Default: policy.Deny}, Egress: ir.Chain{Default: policy.Deny}},
		Forward:   desired.Chains{Ingress: open, Egress: open},
		PreDNAT:   desired.Chains{Ingress: open, Egress: open},
		Untracked: desired.Chains{Ingress: open, Egress: open},
	}
	if change != nil {
		change(h, d)
	}
	d.HostEndpoints = map[string]*desired.HostEndpoint{iface: h}
	return d
}

// eachHost is eachFlavour, and the markers between the node and the outside are
// known too.
func eachHost(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	eachFlavour(t, func(t *testing.T, w *world) {
		inputPolicy := func(target string) {
			for _, f := range families {
				w.iptables(f, "", "-P", "INPUT", target)
			}
		}
		inputPolicy("ACCEPT")
		for _, is6 := range bothFamilies {
			for _, m := range []shot{w.marker("outside", "host", is6), w.marker("host", "outside", is6)} {
				w.sites[m.from].transmit(m.packet)
				w.await(m, map[string]map[key]bool{})
			}
		}
		inputPolicy("DROP")
		test(t, w)
	})
}

// judged returns a chain of one tier with one program of these rules, which end
// says how to leave.
func judged(d desired.Delta, name string, dir policy.Direction, end, last policy.Action, rules ...ir.Rule) ir.Chain {
	id := knp(name, dir)
	d.Programs[id] = &ir.Program{ID: id, Rules: rules}
	return ir.Chain{Tiers: []ir.Tier{{Name: "default", Programs: []ir.ProgramID{id}, End: end}}, Default: last}
}

func port(a policy.Action, p policy.Protocol, ports ...uint16) ir.Rule {
	r := ir.Rule{Action: a, Protocol: p}
	for _, n := range ports {
		r.DstPorts = append(r.DstPorts, ir.PortRange{First: n, Last: n})
	}
	return r
}

// to returns a shot of a new connection to a port.
func (w *world) to(from, to string, is6 bool, proto policy.Protocol, port uint16) shot {
	return shot{from, to, w.fresh(from, to, is6, proto, port)}
}

func TestD6AHostEndpointClosesItsNodeButForPolicyAndFailsafes(t *testing.T) {
	eachHost(t, func(t *testing.T, w *world) {
		w.apply(w.guarded("eth0", func(h *desired.HostEndpoint, d desired.Delta) {
			h.Normal.Ingress = judged(d, "in", policy.Ingress, policy.Deny, policy.Deny, port(policy.Allow, policy.TCP, 80))
		}))
		for _, is6 := range bothFamilies {
			w.expect(true, w.to("outside", "host", is6, policy.TCP, 80))
			w.expect(false, w.to("outside", "host", is6, policy.TCP, 81))
			w.expect(true, w.to("outside", "host", is6, policy.TCP, 22)) // failsafe
			w.expect(false, w.to("outside", "host", is6, policy.UDP, 22))
			w.expect(true, w.to("a", "host", is6, policy.TCP, 81)) // a pod's way to its node is its own policy's
			w.expect(true, w.to("outside", "b", is6, policy.TCP, 81))
			w.expect(true, w.to("host", "a", is6, policy.TCP, 81))
		}
	})
}

func TestD7WhatTheNodeSendsIsJudgedButNotToItsPods(t *testing.T) {
	eachHost(t, func(t *testing.T, w *world) {
		for _, iface := range []string{"eth0", desired.AnyInterface} {
			w.apply(desired.Delta{HostEndpoints: map[string]*desired.HostEndpoint{"eth0": nil, desired.AnyInterface: nil}})
			w.apply(w.guarded(iface, func(h *desired.HostEndpoint, d desired.Delta) {
				h.Normal.Egress = judged(d, "out", policy.Egress, policy.Deny, policy.Deny, port(policy.Allow, policy.TCP, 80))
			}))
			for _, is6 := range bothFamilies {
				w.expect(true, w.to("host", "outside", is6, policy.TCP, 80))
				w.expect(false, w.to("host", "outside", is6, policy.TCP, 81))
				w.expect(true, w.to("host", "outside", is6, policy.UDP, 53)) // failsafe
				w.expect(false, w.to("host", "outside", is6, policy.UDP, 54))
				w.expect(true, w.to("host", "a", is6, policy.TCP, 81))
				w.expect(true, w.to("a", "outside", is6, policy.TCP, 81))
			}
			w.iptables(ir.IPv4, "", "-I", "INPUT", "-i", "lo", "-j", "ACCEPT")
			w.host.Run("ping", "-c1", "-W2", "127.0.0.1") // the node talks to itself
		}
	})
}

// TestD4WhatTheNodeSendsToAServiceIsJudgedWhereItGoes: in filter OUTPUT the kernel
// has not found yet through which interface a translated packet leaves.
func TestD4WhatTheNodeSendsToAServiceIsJudgedWhereItGoes(t *testing.T) {
	eachFlavour(t, func(t *testing.T, w *world) {
		services := addrs("10.96.0.10", "fd96::10")
		for _, f := range families {
			is6 := f == ir.IPv6
			w.host.Run("ip", "route", "add", services[is6].String(), "dev", "lo") // some way, not the one it takes
			for n, backend := range map[string]string{"80": "outside", "81": "outside", "82": "a"} {
				to := netip.AddrPortFrom(w.sites[backend].addrs[is6], 1000)
				w.iptables(f, "", "-t", "nat", "-A", "OUTPUT", "-p", "udp", "-d", services[is6].String(), "--dport", n, "-j", "DNAT", "--to", to.String())
			}
		}
		w.apply(w.guarded("eth0", func(h *desired.HostEndpoint, d desired.Delta) {
			outside := []netip.Prefix{netip.MustParsePrefix("192.168.7.9/32"), netip.MustParsePrefix("fd07::9/128")}
			allow := port(policy.Allow, policy.UDP, 1000)
			allow.DstNets, allow.SrcPorts = outside, []ir.PortRange{{First: 20000, Last: 29999}}
			h.Normal.Egress = judged(d, "out", policy.Egress, policy.Deny, policy.Deny, allow)
		}))
		for _, is6 := range bothFamilies {
			for _, c := range []struct {
				src, dst uint16
				to       string
				arrives  bool
			}{{20000, 80, "outside", true}, {30000, 81, "outside", false}, {30001, 82, "a", true}} {
				p := packet{from: w.sites["host"].addrs[is6], to: services[is6], proto: policy.UDP, src: c.src, dst: c.dst}
				w.sites["host"].transmit(p)
				m, got := w.marker("host", "a", is6), map[string]map[key]bool{}
				w.sites["host"].transmit(m.packet)
				w.await(m, got)
				if arrived := got[c.to][p.key()]; arrived != c.arrives {
					t.Errorf("IPv6 %v, from port %d to service port %d: arrived at %s: %v", is6, c.src, c.dst, c.to, arrived)
				}
			}
		}
	})
}

func TestD5HostEndpointsStandOnBothSidesOfPods(t *testing.T) {
	eachFlavour(t, func(t *testing.T, w *world) {
		w.attach("far", "eth9", addrs("192.168.8.9", "fd08::9"))
		w.sites["far"].wire = newWire(t, w.sites["far"].ns)
		w.apply(w.guarded("eth0", func(h *desired.HostEndpoint, d desired.Delta) {
			h.Forward.Ingress = judged(d, "in", policy.Ingress, policy.Deny, policy.Allow, port(policy.Allow, policy.TCP, 80, 90))
			h.Forward.Egress = judged(d, "out", policy.Egress, policy.Deny, policy.Allow, port(policy.Allow, policy.TCP, 443, 90))
			e := d.Endpoints[w.sites["b"].iface]
			e.Ingress = judged(d, "b", policy.Ingress, policy.Deny, policy.Deny, port(policy.Allow, policy.TCP, 80, 81))
		}))
		fire := func(s shot, want bool) {
			t.Helper()
			w.sites[s.from].transmit(s.packet)
			m, got := w.marker("a", "b", s.to == ""), map[string]map[key]bool{}
			w.sites["a"].transmit(m.packet)
			w.await(m, got)
			if arrived := got[s.to][s.key()]; arrived != want {
				t.Errorf("%s: arrived: %v", s, arrived)
			}
		}
		for _, is6 := range bothFamilies {
			fire(w.to("outside", "b", is6, policy.TCP, 80), true)
			fire(w.to("outside", "b", is6, policy.TCP, 81), false) // the host endpoint says no
			fire(w.to("outside", "b", is6, policy.TCP, 90), false) // the pod says no
			fire(w.to("b", "outside", is6, policy.TCP, 443), true)
			fire(w.to("b", "outside", is6, policy.TCP, 80), false)
			fire(w.to("a", "b", is6, policy.TCP, 81), true)
			fire(w.to("outside", "far", is6, policy.TCP, 90), true) // what policy allows, the node's own policy does not drop
			fire(w.to("outside", "far", is6, policy.TCP, 91), false)
			fire(w.to("far", "outside", is6, policy.TCP, 443), true)
			fire(w.to("far", "b", is6, policy.TCP, 81), true) // another interface
		}
	})
}

func TestD4PreDNATPolicySeesWhatTheClientAsked(t *testing.T) {
	eachFlavour(t, func(t *testing.T, w *world) {
		for _, f := range families {
			for _, n := range []string{"30080", "30081", "30082"} {
				to := netip.AddrPortFrom(w.sites["b"].addrs[f == ir.IPv6], 1000)
				w.iptables(f, "", "-t", "nat", "-A", "PREROUTING", "-p", "udp", "--dport", n, "-j", "DNAT", "--to", to.String())
			}
		}
		w.apply(w.guarded("eth0", func(h *desired.HostEndpoint, d desired.Delta) {
			h.PreDNAT.Ingress = judged(d, "early", policy.Ingress, policy.Pass, policy.Allow,
				port(policy.Allow, policy.UDP, 30080, 2000), port(policy.Deny, policy.UDP, 30081))
			h.Forward.Ingress = judged(d, "late", policy.Ingress, policy.Deny, policy.Allow, port(policy.Allow, policy.TCP, 1))
		}))
		for _, is6 := range bothFamilies {
			send := func(dst uint16, to string, want bool) {
				t.Helper()
				p := w.fresh("outside", "host", is6, policy.UDP, dst)
				w.sites["outside"].transmit(p)
				m, got := w.marker("outside", "b", is6), map[string]map[key]bool{}
				w.sites["outside"].transmit(m.packet)
				w.await(m, got)
				if arrived := got[to][p.key()]; arrived != want {
					t.Errorf("IPv6 %v, port %d: arrived at %s: %v", is6, dst, to, arrived)
				}
			}
			send(30080, "b", true)   // what it allows, the host endpoint's other policies are not asked
			send(30081, "b", false)  // what it denies
			send(30082, "b", false)  // what it does not decide, they are
			send(2000, "host", true) // the same for what ends on the node
			send(2001, "host", false)
			send(22, "host", false) // a failsafe is of TCP
		}
	})
}

func TestD3UntrackedPolicyDecidesBeforeConntrack(t *testing.T) {
	eachHost(t, func(t *testing.T, w *world) {
		w.apply(w.guarded("eth0", func(h *desired.HostEndpoint, d desired.Delta) {
			h.Untracked.Ingress = judged(d, "in", policy.Ingress, policy.Pass, policy.Allow,
				port(policy.Allow, policy.UDP, 5000), port(policy.Deny, policy.TCP, 22, 23))
			reply := ir.Rule{Action: policy.Allow, Protocol: policy.UDP, SrcPorts: []ir.PortRange{{First: 5000, Last: 5000}}}
			h.Untracked.Egress = judged(d, "out", policy.Egress, policy.Pass, policy.Allow, reply)
		}))
		for _, is6 := range bothFamilies {
			w.expect(true, w.to("outside", "host", is6, policy.UDP, 5000))
			w.expect(false, w.to("outside", "host", is6, policy.UDP, 5001)) // goes on to a closed node
			w.expect(true, w.to("outside", "host", is6, policy.TCP, 22))    // failsafe, before a rule that denies
			w.expect(false, w.to("outside", "host", is6, policy.TCP, 23))
			w.expect(true, w.to("outside", "b", is6, policy.UDP, 5000)) // a pod is asked as ever
			reply := w.to("host", "outside", is6, policy.UDP, 4000)
			w.expect(false, reply)
			reply.packet.src = 5000
			w.expect(true, reply)
		}
		for _, table := range []string{"conntrack", "conntrack6"} {
			args := []string{"-L", "-p", "udp", "--dport", "5000"}
			if table == "conntrack6" {
				args = append(args, "-f", "ipv6")
			}
			out := w.host.Run("conntrack", args...)
			for _, b := range []netip.Addr{w.sites["host"].addrs[false], w.sites["host"].addrs[true]} {
				if rules := rulesWith(out, fmt.Sprintf("dst=%s sport", b)); len(rules) > 0 {
					t.Errorf("conntrack knows what is not tracked: %v", rules)
				}
			}
		}
	})
}

// TestD11AnInterfaceOfItsOwnIsNotTheWildcards: also where it has no policy.
func TestD11AnInterfaceOfItsOwnIsNotTheWildcards(t *testing.T) {
	eachHost(t, func(t *testing.T, w *world) {
		d := w.guarded(desired.AnyInterface, func(h *desired.HostEndpoint, d desired.Delta) {
			h.Forward.Ingress = judged(d, "all", policy.Ingress, policy.Deny, policy.Allow)
			h.Untracked.Ingress = judged(d, "raw", policy.Ingress, policy.Pass, policy.Allow, port(policy.Deny, policy.SCTP))
		})
		w.apply(d)
		for _, is6 := range bothFamilies {
			w.expect(false, w.to("outside", "b", is6, policy.TCP, 80))
			w.expect(false, w.to("outside", "host", is6, policy.TCP, 80))
			w.expect(true, w.to("a", "b", is6, policy.SCTP, 80)) // not for pods
		}
		own := w.guarded("eth0", nil).HostEndpoints["eth0"]
		w.apply(desired.Delta{HostEndpoints: map[string]*desired.HostEndpoint{"eth0": own}})
		for _, is6 := range bothFamilies {
			w.expect(true, w.to("outside", "b", is6, policy.TCP, 80))
			w.expect(true, w.to("outside", "b", is6, policy.SCTP, 80))
			w.expect(false, w.to("outside", "host", is6, policy.TCP, 80))
		}
		w.apply(desired.Delta{HostEndpoints: map[string]*desired.HostEndpoint{"eth0": nil, desired.AnyInterface: nil}})
		for _, table := range []string{"raw", "mangle", "filter"} {
			if left := rulesWith(w.saved(table), "kh"); len(left) > 0 {
				t.Errorf("left behind in %s: %v", table, left)
			}
		}
	})
}

func TestD11ABadInterfaceOfAHostEndpointIsTold(t *testing.T) {
	for _, iface := range []string{"kor0123", "eth+", "eth0 -j ACCEPT", "", "-any"} {
		if badHost(iface) == nil {
			t.Errorf("%q is taken", iface)
		}
	}
	for _, iface := range []string{"eth0", "bond0.100", "lo", desired.AnyInterface} {
		if err := badHost(iface); err != nil {
			t.Error(err)
		}
	}
}
