package iptables

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// rulesWith returns the lines that hold a word.
func rulesWith(text, word string) []string {
	var found []string
	for line := range strings.Lines(text) {
		if strings.Contains(line, word) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

// set returns a Delta that changes the default settings.
func set(change func(*desired.Settings)) desired.Delta {
	s := desired.DefaultSettings()
	change(&s)
	return desired.Delta{Settings: &s}
}

func TestD2MarksThatOthersUseAreRefused(t *testing.T) {
	for mask, why := range map[uint32]string{
		0xf000: "kube-proxy's", 0x80f0: "kube-proxy's", 0x20f0: "portmap's", 0x70000: "at least 4", 0: "at least 4",
		0xf0: "", 0x4f0000: "",
	} {
		_, err := newMarks(mask)
		if (err == nil) != (why == "") || err != nil && !strings.Contains(err.Error(), why) {
			t.Errorf("%#x: %v, want %q", mask, err, why)
		}
	}
	m, err := newMarks(0xf0f00000)
	if err != nil || m != (marks{accept: 0x100000, pass: 0x200000, block: 0x400000, every: 0x800000}) {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestD2MarksThatAreRefusedLeaveTheOldOnes(t *testing.T) {
	eachFlavour(t, func(t *testing.T, w *world) {
		before := w.saved("raw", "filter")
		for _, f := range w.walls {
			f.Want(set(func(s *desired.Settings) { s.Marks = 0xf000 }))
			w.host.Do(func() {
				if err := f.Apply(t.Context()); err == nil || !strings.Contains(err.Error(), "kube-proxy") {
					t.Errorf("Apply says %v", err)
				}
			})
		}
		if w.saved("raw", "filter") != before {
			t.Error("the rules changed")
		}
	})
}

// TestD2MarksChangeWhilePacketsFlow sends packets from within, between the writes
// of the tables: iptables-restore of this test does.
func TestD2MarksChangeWhilePacketsFlow(t *testing.T) {
	eachHost(t, func(t *testing.T, w *world) {
		d := w.guarded("eth0", func(h *desired.HostEndpoint, d desired.Delta) {
			h.Untracked.Ingress = judged(d, "raw", policy.Ingress, policy.Pass, policy.Allow, port(policy.Allow, policy.UDP, 5000))
			h.PreDNAT.Ingress = judged(d, "early", policy.Ingress, policy.Pass, policy.Allow, port(policy.Allow, policy.UDP, 5001))
			d.Endpoints[w.sites["b"].iface].Ingress = judged(d, "b", policy.Ingress, policy.Deny, policy.Deny, port(policy.Allow, policy.TCP, 80))
		})
		w.apply(d)
		probe := func() {
			for _, is6 := range bothFamilies {
				w.expect(true, w.to("outside", "host", is6, policy.UDP, 5000))
				w.expect(true, w.to("outside", "host", is6, policy.UDP, 5001))
				w.expect(false, w.to("outside", "host", is6, policy.UDP, 5002))
				w.expect(true, w.to("outside", "b", is6, policy.TCP, 80))
				w.expect(false, w.to("a", "b", is6, policy.TCP, 81))
			}
		}
		// The new accept bit is a scratch bit of the old ones.
		for _, mask := range []uint32{0x1e0000, 0x780000, 0xf0000, 0xf00} {
			for _, f := range w.walls {
				f.Want(set(func(s *desired.Settings) { s.Marks = mask }))
				stages := [][]*table{{f.filter}, {f.mangle}, {f.raw}}
				for _, stage := range stages {
					w.host.Do(func() {
						if err := f.writeTables(t.Context(), stage...); err != nil {
							t.Fatal(err)
						}
					})
					probe()
				}
				w.host.Do(func() {
					if err := f.Apply(t.Context()); err != nil {
						t.Fatal(err)
					}
				})
				if f.style.formerly != 0 {
					t.Errorf("%#x: the old mark is still listened to", mask)
				}
			}
			probe()
			low, _ := newMarks(mask)
			if got := rulesWith(w.saved("raw", "mangle", "filter"), "MARK --set-xmark"); len(rulesWith(strings.Join(got, "\n"), fmt.Sprintf("/%#x", low.all()))) == 0 {
				t.Errorf("%#x: not in the rules", mask)
			}
		}
	})
}

// TestD2ALifeWithOtherMarksStartsClosedAndConverges: until all is known, rules of
// the earlier life stay, and new ones must understand their marks.
func TestD2ALifeWithOtherMarksStartsClosedAndConverges(t *testing.T) {
	eachFlavour(t, func(t *testing.T, w *world) {
		w.apply(w.policed(allowTCP))
		w.restarted()
		d := set(func(s *desired.Settings) { s.Marks = 0xf00000 })
		d.Endpoints = w.policed(allowTCP).Endpoints
		d.Programs = w.policed(allowTCP).Programs
		w.apply(d)
		for _, is6 := range bothFamilies {
			w.expect(true, w.new("a", "b", is6, policy.TCP))
			w.expect(false, w.new("a", "b", is6, policy.UDP))
		}
		if strings.Contains(w.saved("filter"), "0x100000") {
			t.Error("the marks changed before all was known")
		}
		w.apply(desired.Delta{Complete: true})
		for _, is6 := range bothFamilies {
			w.expect(true, w.new("a", "b", is6, policy.TCP))
			w.expect(false, w.new("a", "b", is6, policy.UDP))
		}
		if got := w.saved("filter"); !strings.Contains(got, "0x100000/0xf00000") || strings.Contains(got, "/0xf0000 ") {
			t.Errorf("not the marks that are wanted:\n%s", got)
		}
	})
}

func TestD1HostEndpointsOfAnEarlierLifeStayUntilAllIsKnown(t *testing.T) {
	eachFlavour(t, func(t *testing.T, w *world) {
		d := w.guarded("eth0", func(h *desired.HostEndpoint, d desired.Delta) {
			h.PreDNAT.Ingress = judged(d, "early", policy.Ingress, policy.Pass, policy.Allow, port(policy.Deny, policy.TCP, 90))
		})
		w.apply(d)
		before := w.saved("raw", "mangle", "filter")
		w.restarted()
		early := w.open()
		early.Complete = false
		w.apply(early)
		if got := w.saved("raw", "mangle", "filter"); got != before {
			t.Errorf("the kernel changed:\n%s", got)
		}
		w.apply(desired.Delta{Complete: true})
		for _, is6 := range bothFamilies {
			w.expect(true, w.to("outside", "b", is6, policy.TCP, 90))
		}
		if left := rulesWith(w.saved("raw", "mangle", "filter"), "kh"); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
}

func TestD6WhatPodsSendToTheirNode(t *testing.T) {
	eachFlavour(t, func(t *testing.T, w *world) {
		for action, arrives := range map[policy.Action]bool{policy.Allow: true, policy.Deny: false, policy.Pass: false} {
			w.apply(set(func(s *desired.Settings) { s.PodToHost = action }))
			for _, is6 := range bothFamilies {
				w.expect(arrives, w.new("a", "host", is6, policy.TCP))
				// An answer to the node: the marker's connection is one.
				w.expect(true, w.marker("a", "host", is6))
			}
		}
		for _, f := range families { // Pass: the node's own rules decide
			w.iptables(f, "", "-A", "INPUT", "-p", "tcp", "-j", "ACCEPT")
		}
		w.apply(set(func(s *desired.Settings) { s.PodToHost = policy.Pass }))
		for _, is6 := range bothFamilies {
			w.expect(true, w.new("a", "host", is6, policy.TCP))
			w.expect(false, w.new("a", "host", is6, policy.UDP))
		}
		d := w.open()
		d.Endpoints[w.sites["a"].iface].Egress = ir.Chain{Default: policy.Deny}
		w.apply(d)
		for _, is6 := range bothFamilies {
			w.expect(false, w.new("a", "host", is6, policy.TCP)) // policy comes first
		}
	})
}

func TestD9InvalidPacketsMayBeLeftToPolicy(t *testing.T) {
	eachFlavour(t, func(t *testing.T, w *world) {
		for action, arrives := range map[policy.Action]bool{policy.Deny: false, policy.Allow: true} {
			w.apply(set(func(s *desired.Settings) { s.Invalid = action }))
			for _, is6 := range bothFamilies {
				p := w.fresh("a", "b", is6, policy.UDP, 1000)
				b := p.transport()
				b[7]++ // a wrong checksum: conntrack cannot place it, but a raw socket takes it
				w.sites["a"].raw(p.from, p.to, p.proto, b)
				m, got := w.marker("a", "b", is6), map[string]map[key]bool{}
				w.sites["a"].transmit(m.packet)
				w.await(m, got)
				if arrived := got["b"][p.key()]; arrived != arrives {
					t.Errorf("Invalid %s, IPv6 %v: arrived: %v", action, is6, arrived)
				}
			}
		}
	})
}

// withSets makes sets and tells the firewalls of them.
func (w *world) withSets(s sets) {
	w.t.Helper()
	w.loadSets(s)
	w.apply(desired.Delta{Sets: s})
}

func TestD5PacketsToServicesThatNobodyServesDoNotLoop(t *testing.T) {
	eachFlavour(t, func(t *testing.T, w *world) {
		services := map[ir.Member]struct{}{}
		for _, n := range nets("10.96.0.0/16", "fd96::/64") {
			services[ir.Member{Prefix: n}] = struct{}{}
			w.host.Run("ip", "route", "add", n.String(), "dev", "eth0") // back to where it came from
		}
		w.host.Run("ip", "neigh", "replace", "10.96.0.1", "lladdr", w.sites["outside"].ns.Link("eth0").Attrs().HardwareAddr.String(), "dev", "eth0", "nud", "permanent")
		w.sites["outside"].ns.Run("ip", "addr", "add", "10.96.0.1/32", "dev", "lo")
		w.withSets(sets{desired.ServicesSet: {Kind: ir.Nets, Whole: true, Add: services}})
		send := func() bool {
			p := w.fresh("a", "outside", false, policy.UDP, 1000)
			p.to = netip.MustParseAddr("10.96.0.1")
			w.sites["a"].transmit(p)
			m, got := w.marker("a", "outside", false), map[string]map[key]bool{}
			w.sites["a"].transmit(m.packet)
			w.await(m, got)
			return got["outside"][p.key()]
		}
		if send() {
			t.Error("it arrived")
		}
		w.apply(set(func(s *desired.Settings) { s.Loops = policy.Pass }))
		if !send() {
			t.Error("Pass: it did not arrive")
		}
	})
}

func TestD10DropsAreToldOnlyWhereThatIsWanted(t *testing.T) {
	eachFlavour(t, func(t *testing.T, w *world) {
		d := w.policed(port(policy.Deny, policy.UDP, 7), allowTCP)
		w.apply(d)
		id := knp("guard", policy.Ingress)
		for tag, s := range map[string]shot{
			desired.Reason{Cause: desired.ByRule, Direction: policy.Ingress, Policy: id.Policy}.Tag():  w.to("a", "b", false, policy.UDP, 7),
			desired.Reason{Cause: desired.EndOfTier, Direction: policy.Ingress, Tier: "default"}.Tag(): w.to("a", "b", false, policy.UDP, 8),
			desired.Reason{Cause: desired.Tunnel, Direction: policy.Egress}.Tag():                      w.to("a", "b", false, policy.UDP, vxlanPort),
		} {
			chain := dropChain(tag)
			w.expect(false, s)
			out := w.iptables(ir.IPv4, "-save", "-c", "-t", "filter")
			told := rulesWith(out, "-A "+chain+" ")
			if len(told) != 2 || !strings.HasPrefix(told[0], "[1:") || !strings.Contains(told[0], `--nflog-prefix "`+tag+`"`) || !strings.Contains(told[0], "--nflog-group 112") {
				t.Errorf("%s: %v", tag, told)
			}
		}
		w.apply(set(func(s *desired.Settings) { s.DropRecords = false }))
		if got := rulesWith(w.saved("raw", "filter"), "NFLOG"); len(got) > 0 || len(rulesWith(w.saved("raw", "filter"), "kd-")) > 0 {
			t.Errorf("left behind: %v", got)
		}
		w.expect(false, w.to("a", "b", false, policy.UDP, 7))
		w.expect(true, w.to("a", "b", false, policy.TCP, 7))
	})
}
