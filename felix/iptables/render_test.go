package iptables

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/hack/golden"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// text prints chains as an iptables-restore script would have them, without hashes.
func text(chains ...chain) string {
	var b strings.Builder
	for _, c := range chains {
		fmt.Fprintf(&b, ":%s\n", c.name)
		for _, r := range c.rules {
			b.WriteString("    " + r.spec)
			if r.note != "" {
				b.WriteString("    # " + r.note)
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

func nets(texts ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(texts))
	for i, s := range texts {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

func knp(name string, d policy.Direction) ir.ProgramID {
	return ir.ProgramID{Policy: policy.Key{Kind: policy.KubernetesNetworkPolicy, Namespace: "shop", Name: name}, Direction: d}
}

var families = map[string]ir.Family{"ipv4": ir.IPv4, "ipv6": ir.IPv6}

// plain is the style of a node that nothing was said about, without records of
// drops, which only make goldens longer.
func plain(f ir.Family) style {
	settings := desired.DefaultSettings()
	settings.DropRecords = false
	m, err := newMarks(settings.Marks)
	if err != nil {
		panic(err)
	}
	return style{family: f, marks: m, settings: settings}
}

// layers prints all tables of a style without pods.
func layers(s style) string {
	out := ""
	for _, t := range []struct {
		name string
		layer
	}{{"raw", s.raw()}, {"mangle", s.mangle()}, {"filter", s.filter()}, {"nat", s.nat()}} {
		if len(t.chains) == 0 {
			continue
		}
		out += "*" + t.name + "\n"
		for _, h := range t.hooks {
			at := "tail"
			if h.first {
				at = "head"
			}
			out += fmt.Sprintf("%s of %s: %s\n", at, h.builtin, h.chain.rules[0].spec)
		}
		out += text(t.chains...)
	}
	return out
}

func TestStaticChainsAndHooks(t *testing.T) {
	for name, f := range families {
		golden.Compare(t, "testdata/static-"+name+".txt", layers(plain(f)))
	}
}

func TestEndpointChains(t *testing.T) {
	id := func(n string) ir.ProgramID { return knp(n, policy.Ingress) }
	e := &desired.Endpoint{
		Interface: "kor00000000abc", Pod: "shop/web",
		Addrs: []netip.Addr{netip.MustParseAddr("10.1.0.7"), netip.MustParseAddr("fd00::7")},
		Ingress: ir.Chain{
			Tiers: []ir.Tier{
				{Name: "admin", Programs: []ir.ProgramID{id("a"), id("b")}, End: policy.Pass},
				{Name: "default", Programs: []ir.ProgramID{id("c")}, End: policy.Deny},
			},
			Default: policy.Deny,
		},
		Egress: ir.Chain{Default: policy.Allow},
	}
	for name, f := range families {
		golden.Compare(t, "testdata/endpoint-"+name+".txt", text(plain(f).fromPod(e), plain(f).toPod(e)))
	}
	e.Addrs = append(e.Addrs, netip.MustParseAddr("10.1.0.6"))
	golden.Compare(t, "testdata/endpoint-two-addresses.txt", text(plain(ir.IPv4).fromPod(e)))
}

// policyRules are one program per shape of a rule; the golden shows each in both families.
var policyRules = []struct {
	name string
	rule ir.Rule
}{
	{"everything", ir.Rule{Action: policy.Allow}},
	{"one port", ir.Rule{Action: policy.Allow, Protocol: policy.TCP, DstPorts: []ir.PortRange{{First: 80, Last: 80}}}},
	{"one range", ir.Rule{Action: policy.Allow, Protocol: policy.UDP, DstPorts: []ir.PortRange{{First: 80, Last: 90}}}},
	{"all ports", ir.Rule{Action: policy.Allow, Protocol: policy.SCTP, DstPorts: []ir.PortRange{{First: 0, Last: 100}, {First: 101, Last: 65535}}}},
	{"no port in the range", ir.Rule{Action: policy.Allow, Protocol: policy.TCP, DstPorts: []ir.PortRange{{First: 9, Last: 8}}}},
	{"a port of any protocol", ir.Rule{Action: policy.Allow, DstPorts: []ir.PortRange{{First: 9, Last: 9}}}},
	{"ports of a protocol without", ir.Rule{Action: policy.Allow, Protocol: policy.ICMP, DstPorts: []ir.PortRange{{First: 9, Last: 9}}}},
	{"a protocol by number", ir.Rule{Action: policy.Deny, Protocol: policy.ICMP}},
	{"fifteen ports", ir.Rule{Action: policy.Allow, Protocol: policy.TCP, DstPorts: manyPorts(15, 0)}},
	{"sixteen ports", ir.Rule{Action: policy.Allow, Protocol: policy.TCP, DstPorts: manyPorts(16, 0)}},
	{"seven ranges and a port", ir.Rule{Action: policy.Allow, Protocol: policy.TCP, DstPorts: append(manyPorts(7, 3), ir.PortRange{First: 9999, Last: 9999})}},
	{"eight ranges", ir.Rule{Action: policy.Allow, Protocol: policy.TCP, DstPorts: manyPorts(8, 3)}},
	{"sets", ir.Rule{Action: policy.Allow, SrcSets: []ir.SetID{"s1", "s2"}, DstSets: []ir.SetID{"d"}}},
	{"one family by its field", ir.Rule{Action: policy.Allow, Family: ir.IPv6, SrcSets: []ir.SetID{"s1"}}},
	{"one family by its nets", ir.Rule{Action: policy.Allow, SrcNets: nets("10.0.0.0/8"), DstNets: nets("10.0.0.0/8", "fd00::/8")}},
	{"a family each", ir.Rule{Action: policy.Allow, SrcNets: nets("10.0.0.0/8"), DstNets: nets("fd00::/8")}},
	{"all addresses of one family", ir.Rule{Action: policy.Allow, SrcNets: nets("10.0.0.0/8", "0.0.0.0/0")}},
	{"all addresses excluded", ir.Rule{Action: policy.Allow, NotSrcNets: nets("10.0.0.0/8", "0.0.0.0/0")}},
	{"one exclusion", ir.Rule{Action: policy.Deny, NotSrcNets: nets("10.0.0.0/8"), NotDstNets: nets("fd00::/8")}},
	{"a block with exceptions", ir.Rule{Action: policy.Allow, Protocol: policy.TCP, SrcNets: nets("10.0.0.0/8"), NotSrcNets: nets("10.1.0.0/16", "10.2.0.0/16"), DstPorts: manyPorts(1, 0)}},
	{"two by two", ir.Rule{Action: policy.Pass, SrcNets: nets("10.0.0.0/8", "11.0.0.0/8"), DstNets: nets("12.0.0.0/8", "13.0.0.0/8")}},
	{"two by two with exceptions", ir.Rule{Action: policy.Pass, SrcNets: nets("10.0.0.0/8", "11.0.0.0/8"), DstNets: nets("12.0.0.0/8", "13.0.0.0/8"), NotSrcNets: nets("10.1.0.0/16"), NotDstNets: nets("12.1.0.0/16")}},
	{"no rule but a note", ir.Rule{Action: policy.Log}},
	{"a note on what two nets and two ports have", ir.Rule{
		Action: policy.Log, Origin: 3, Protocol: policy.TCP, SrcNets: nets("10.0.0.0/8", "10.1.0.0/16"), DstPorts: manyPorts(2, 0),
	}},
	{"not one protocol", ir.Rule{Action: policy.Allow, NotProtocols: []policy.Protocol{policy.ICMP}}},
	{"not two protocols", ir.Rule{Action: policy.Allow, NotProtocols: []policy.Protocol{policy.TCP, policy.UDP}}},
	{"ports of any protocol but one", ir.Rule{Action: policy.Allow, NotProtocols: []policy.Protocol{policy.TCP}, DstPorts: manyPorts(1, 0)}},
	{"source ports", ir.Rule{Action: policy.Allow, Protocol: policy.TCP, SrcPorts: manyPorts(1, 0), DstPorts: manyPorts(2, 0)}},
	{"long lists of ports at both ends", ir.Rule{Action: policy.Allow, Protocol: policy.TCP, SrcPorts: manyPorts(16, 0), DstPorts: manyPorts(16, 0)}},
	{"sets of all kinds", ir.Rule{
		Action: policy.Allow, SrcSets: []ir.SetID{"a"}, DstSets: []ir.SetID{"b"}, NotSrcSets: []ir.SetID{"c"}, NotDstSets: []ir.SetID{"d"},
		SrcPortSets: []ir.SetID{"e"}, DstPortSets: []ir.SetID{"f"}, NotSrcPortSets: []ir.SetID{"g"}, NotDstPortSets: []ir.SetID{"h"},
	}},
	{"an ICMP type", ir.Rule{Action: policy.Allow, Protocol: policy.ICMP, Message: policy.Message{Compare: policy.MessageType, Type: 8}}},
	{"an ICMPv6 type and code", ir.Rule{Action: policy.Allow, Protocol: policy.ICMPv6, Message: policy.Message{Compare: policy.MessageTypeAndCode, Type: 1, Code: 4}}},
	{"not some ICMP messages", ir.Rule{Action: policy.Allow, Protocol: policy.ICMP, NotMessages: []policy.Message{
		{Compare: policy.MessageType, Type: 8}, {Compare: policy.MessageTypeAndCode, Type: 3, Code: 1}, {Compare: policy.MessageType, Type: 255},
	}}},
	{"the type that the kernel takes for all", ir.Rule{Action: policy.Allow, Protocol: policy.ICMP, Message: policy.Message{Compare: policy.MessageType, Type: 255}}},
	{"lists too long to multiply", ir.Rule{
		Action: policy.Deny, Protocol: policy.TCP, DstPorts: manyPorts(31, 0), SrcSets: []ir.SetID{"s1"},
		SrcNets: nets("10.0.0.0/8", "11.0.0.0/8", "12.0.0.0/8"), DstNets: nets("13.0.0.0/8", "14.0.0.0/8", "15.0.0.0/8"), NotDstNets: nets("15.1.0.0/16"),
	}},
}

// manyPorts returns n ranges that cannot be merged, each of 1+span ports.
func manyPorts(n, span uint16) []ir.PortRange {
	out := make([]ir.PortRange, n)
	for i := range out {
		first := 1000 + uint16(i)*10
		out[i] = ir.PortRange{First: first, Last: first + span}
	}
	return out
}

func TestPolicyRules(t *testing.T) {
	var b strings.Builder
	for _, c := range policyRules {
		fmt.Fprintf(&b, "== %s\n", c.name)
		for _, f := range []ir.Family{ir.IPv4, ir.IPv6} {
			fmt.Fprintf(&b, "IPv%d\n", f)
			for _, r := range plain(f).programRules(&ir.Program{ID: knp("web", policy.Ingress), Rules: []ir.Rule{c.rule}}) {
				b.WriteString("    " + r.spec + "\n")
			}
		}
	}
	golden.Compare(t, "testdata/policy-rules.txt", b.String())
}

func TestRulesBehindOneThatMatchesEverythingAreNotWritten(t *testing.T) {
	p := &ir.Program{Rules: []ir.Rule{{Action: policy.Allow}, {Action: policy.Deny}}}
	if got := plain(ir.IPv4).programRules(p); len(got) != 1 || got[0].spec != "-g KORAT-ALLOW" {
		t.Errorf("got %v", got)
	}
}

func TestAnUnknownProgramIsClosed(t *testing.T) {
	got := plain(ir.IPv4).programOf(knp("lost", policy.Ingress), nil)
	if len(got.rules) != 1 || got.rules[0].spec != "-j DROP" {
		t.Errorf("got %v", got.rules)
	}
}

func TestDispatchTrie(t *testing.T) {
	few := []string{"kor1", "kor12", "kor2"}
	var many []string
	for i := range 18 {
		many = append(many, fmt.Sprintf("kora7%04x", i*7))
	}
	many = append(many, "kor1", "kor100", "korb00")
	slices.Sort(many)
	golden.Compare(t, "testdata/dispatch.txt", "== none\n"+text(plain(ir.IPv4).dispatch(nil, nil)...)+"== few\n"+text(plain(ir.IPv4).dispatch(few, nil)...)+"== many\n"+text(plain(ir.IPv4).dispatch(many, places(many))...))
}

// places gives each interface the address that is its place in the list.
func places(ifaces []string) []place {
	var all []place
	for i, iface := range ifaces {
		all = append(all, place{netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), iface})
	}
	return all
}

// TestEveryPlaceIsNear follows the chains over addresses as the kernel does.
func TestEveryPlaceIsNear(t *testing.T) {
	for _, n := range []int{1, 17, 200, 1000} {
		var list []string
		for i := range n {
			list = append(list, desired.HostInterface("ns", fmt.Sprint("pod", i)))
		}
		all := places(list)
		chains := map[string]chain{}
		for _, c := range plain(ir.IPv4).dispatch(slices.Sorted(slices.Values(list)), all) {
			if len(c.name) > 28 || !ownName.MatchString(c.name) || chains[c.name].name != "" {
				t.Fatalf("bad name of a chain: %q", c.name)
			}
			chains[c.name] = c
		}
		follow := func(p place) (at string, tests int) {
			for at = nearToChain; strings.HasPrefix(at, nearToChain); {
				for _, r := range chains[at].rules {
					tests++
					match, target := r.split()
					prefix, isAddress := strings.CutPrefix(match, "-d ")
					if match == "" || match == "-o "+p.iface || isAddress && netip.MustParsePrefix(prefix).Contains(p.address) {
						at = strings.TrimPrefix(target, "-g ")
						break
					}
				}
			}
			return at, tests
		}
		if n <= maxLeaf {
			continue // no need for chains over addresses
		}
		for _, p := range all {
			if at, tests := follow(p); at != toPrefix+p.iface || tests > 26 {
				t.Fatalf("%d places: %s leads to %s after %d tests", n, p.address, at, tests)
			}
		}
		nobody := place{netip.MustParseAddr("10.200.0.1"), list[0]}
		if at, _ := follow(nobody); at != setMark(plain(ir.IPv4).marks.astray()) {
			t.Errorf("%d places: an address that is no pod's leads to %s", n, at)
		}
	}
}

func TestDispatchIsShortForEveryNameAndClosedAtEveryLevel(t *testing.T) {
	names := map[string]bool{}
	var list []string
	for i := range 5000 {
		n := desired.HostInterface("ns", fmt.Sprint("pod", i))
		names[n] = true
		list = append(list, n)
	}
	slices.Sort(list)
	chains := map[string]chain{}
	for _, c := range plain(ir.IPv4).dispatch(list, nil) {
		chains[c.name] = c
		if last := c.rules[len(c.rules)-1].spec; last != "-j DROP" && !strings.HasPrefix(c.name, "KORAT-NEAR") {
			t.Fatalf("%s ends with %q", c.name, last)
		}
		if len(c.name) > 28 || !ownName.MatchString(c.name) {
			t.Fatalf("bad name of a chain: %q", c.name)
		}
	}
	for _, n := range append(list, "korunknown", "kor0") {
		got, tests := follow(chains, fromPodChain, "-i", n)
		want := "-j DROP"
		if names[n] {
			want = "-g kfw-" + n
		}
		if got != want {
			t.Fatalf("%s: got %q, want %q", n, got, want)
		}
		if tests > 64 {
			t.Errorf("%s takes %d tests", n, tests)
		}
	}
}

// follow walks a trie as the kernel does and returns where it ends and after how many tests.
func follow(chains map[string]chain, at, flag, iface string) (string, int) {
	tests := 0
	for {
		next := ""
		for _, r := range chains[at].rules {
			tests++
			match, goal := "", r.spec
			if i := strings.LastIndex(r.spec, "-g "); i > 0 {
				match, goal = strings.TrimSpace(r.spec[len(flag)+1:i]), r.spec[i:]
			}
			prefix, wild := strings.CutSuffix(match, "+")
			if match == "" || match == iface || wild && strings.HasPrefix(iface, prefix) {
				next = goal
				break
			}
		}
		at = strings.TrimPrefix(next, "-g ")
		if _, ok := chains[at]; !ok {
			return next, tests
		}
	}
}

func TestHashesTellOrderContentAndChain(t *testing.T) {
	base := newChain("c", specs("a", "b"))
	for name, other := range map[string]chain{
		"order":   newChain("c", specs("b", "a")),
		"content": newChain("c", specs("a", "c")),
		"chain":   newChain("d", specs("a", "b")),
		"longer":  newChain("c", specs("a", "b", "b")),
		"note":    newChain("c", []rule{{spec: "a", note: "x"}, {spec: "b"}}),
	} {
		if slices.Equal(base.hashes, other.hashes) {
			t.Errorf("%s: equal hashes", name)
		}
	}
}

func TestANoteCannotBreakOutOfItsComment(t *testing.T) {
	c := newChain("c", []rule{{spec: "-j DROP", note: "a\"\n-A FORWARD -j ACCEPT" + strings.Repeat("x", 300)}})
	body := c.body(0)
	_, comment, _ := strings.Cut(body, "--comment ")
	if strings.Count(body, `"`) != 2 || strings.Contains(body, "\n") || len(comment) > 256 {
		t.Errorf("got %q", body)
	}
	if got := ruleHash("-A c " + body); got != c.hashes[0] {
		t.Errorf("hash read back: %q, want %q", got, c.hashes[0])
	}
}
