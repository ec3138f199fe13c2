package nft_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/koratnet/korat/felix/apply"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/nft"
	"github.com/koratnet/korat/hack/golden"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

var (
	_ apply.Reconciler = (*nft.Firewall)(nil)
	_ apply.Gated      = (*nft.Firewall)(nil)
)

// listed is what the kernel holds, as nft prints it.
func (w *wall) listed() string {
	w.t.Helper()
	return w.host.Run("nft", "--stateless", "list", "ruleset")
}

func (w *wall) must(d desired.Delta) {
	w.t.Helper()
	if err := w.apply(d); err != nil {
		w.t.Fatal(err)
	}
	if closed := w.Closed(); len(closed) > 0 {
		w.t.Fatalf("closed after Apply: %v", closed)
	}
}

func addr(text string) netip.Addr     { return netip.MustParseAddr(text) }
func prefix(text string) netip.Prefix { return netip.MustParsePrefix(text) }

func program(kind policy.Kind, namespace, name string, d policy.Direction) ir.ProgramID {
	return ir.ProgramID{Policy: policy.Key{Kind: kind, Namespace: namespace, Name: name}, Direction: d}
}

func pod(name string, addrs ...string) *desired.Endpoint {
	e := &desired.Endpoint{
		Interface: desired.HostInterface("shop", name), Pod: "shop/" + name,
		Ingress: ir.Chain{Default: policy.Allow}, Egress: ir.Chain{Default: policy.Allow},
	}
	for _, a := range addrs {
		e.Addrs = append(e.Addrs, addr(a))
	}
	return e
}

func endpoints(all ...*desired.Endpoint) map[string]*desired.Endpoint {
	m := map[string]*desired.Endpoint{}
	for _, e := range all {
		m[e.Interface] = e
	}
	return m
}

func tier(name string, end policy.Action, programs ...ir.ProgramID) ir.Tier {
	return ir.Tier{Name: name, End: end, Programs: programs}
}

func nets(texts ...string) map[ir.Member]struct{} {
	m := map[ir.Member]struct{}{}
	for _, t := range texts {
		m[ir.Member{Prefix: prefix(t)}] = struct{}{}
	}
	return m
}

var (
	admin  = program(policy.GlobalNetworkPolicy, "", "admin", policy.Ingress)
	web    = program(policy.KubernetesNetworkPolicy, "shop", "web", policy.Ingress)
	shared = program(policy.KubernetesNetworkPolicy, "shop", "shared", policy.Ingress)
	leave  = program(policy.KubernetesNetworkPolicy, "shop", "leave", policy.Egress)
	other  = program(policy.KubernetesNetworkPolicy, "shop", "other", policy.Egress)
)

// shop is a node with pods and policies of many kinds.
func shop() desired.Delta {
	a, b := pod("a", "10.1.0.2", "fd01::2"), pod("b", "10.1.0.3")
	a.Ingress = ir.Chain{Tiers: []ir.Tier{tier("security", policy.Pass, admin), tier("default", policy.Deny, web, shared)}, Default: policy.Allow}
	a.Egress = ir.Chain{Tiers: []ir.Tier{tier("default", policy.Deny, leave, other)}, Default: policy.Allow}
	b.Ingress = ir.Chain{Tiers: []ir.Tier{tier("default", policy.Deny, shared)}, Default: policy.Allow}
	b.Egress = ir.Chain{Tiers: []ir.Tier{tier("default", policy.Deny, leave)}, Default: policy.Allow}
	c := pod("c", "10.1.0.4")
	c.Ingress = b.Ingress
	settings := desired.DefaultSettings()
	return desired.Delta{
		Complete: true, Settings: &settings, Endpoints: endpoints(a, b, c),
		Programs: map[ir.ProgramID]*ir.Program{
			admin: {ID: admin, Rules: []ir.Rule{
				{Action: policy.Pass, Protocol: policy.TCP, DstPorts: []ir.PortRange{{First: 80, Last: 80}, {First: 8000, Last: 8080}}},
				{Action: policy.Deny, Protocol: policy.ICMP, Message: policy.Message{Compare: policy.MessageTypeAndCode, Type: 3, Code: 4}, Origin: 1},
			}},
			web: {ID: web, Rules: []ir.Rule{
				{Action: policy.Log, SrcNets: []netip.Prefix{prefix("10.0.0.0/8"), prefix("192.168.4.0/22")}},
				{Action: policy.Allow, SrcSets: []ir.SetID{"clients"}, NotSrcSets: []ir.SetID{"bad"}, Origin: 1},
			}},
			shared: {ID: shared, Rules: []ir.Rule{
				{Action: policy.Allow, Protocol: policy.UDP, SrcNets: []netip.Prefix{prefix("10.0.0.0/9")}, NotSrcNets: []netip.Prefix{prefix("10.3.0.0/16")}},
			}},
			leave: {ID: leave, Rules: []ir.Rule{
				{Action: policy.Allow, DstPortSets: []ir.SetID{"named"}},
				{Action: policy.Deny, NotProtocols: []policy.Protocol{policy.TCP, policy.SCTP}, Origin: 1},
			}},
			other: {ID: other, Rules: []ir.Rule{
				{Action: policy.Allow, Protocol: policy.TCP, SrcPorts: []ir.PortRange{{First: 1024, Last: 65535}}},
			}},
		},
		Sets: map[ir.SetID]*desired.SetChange{
			"clients": {Kind: ir.Addrs, Whole: true, Add: nets("10.1.1.1/32", "fd01::1/128")},
			"bad":     {Kind: ir.Nets, Whole: true, Add: nets("10.1.0.0/16", "10.1.1.0/24", "10.9.0.0/16")},
			"named": {Kind: ir.AddrPorts, Whole: true, Add: map[ir.Member]struct{}{
				{Prefix: prefix("10.1.1.1/32"), Protocol: policy.UDP, Port: 53}: {},
			}},
			desired.MasqueradeSet: {Kind: ir.Nets, Whole: true, Add: nets("10.1.0.0/16")},
			desired.InsideSet:     {Kind: ir.Nets, Whole: true, Add: nets("10.1.0.0/16", "fd01::/48")},
			desired.ServicesSet:   {Kind: ir.Nets, Whole: true, Add: nets("10.96.0.0/12")},
		},
	}
}

func TestNFTPrintsWhatWeMean(t *testing.T) {
	w := newWall(t, kerneltest.New(t))
	w.must(shop())
	golden.Compare(t, "testdata/shop.nft", w.listed())
}

func TestNFTPrintsHostEndpointsAsWeMeanThem(t *testing.T) {
	w := newWall(t, kerneltest.New(t))
	d := shop()
	d.Settings.PodToHost, d.Settings.Invalid, d.Settings.DropRecords = policy.Deny, policy.Allow, false
	d.Settings.Masquerade = desired.Masquerade{To4: addr("192.0.2.1"), Ports: ir.PortRange{First: 32768, Last: 40000}}
	d.Settings.FailsafeIn = append(d.Settings.FailsafeIn, desired.Failsafe{Protocol: policy.TCP, Port: 8443, Net: prefix("192.0.2.0/24")})
	in := func(c ...ir.ProgramID) ir.Chain {
		return ir.Chain{Tiers: []ir.Tier{tier("default", policy.Deny, c...)}, Default: policy.Deny}
	}
	early := ir.Chain{Tiers: []ir.Tier{tier("default", policy.Pass, admin)}, Default: policy.Allow}
	allow := desired.Chains{Ingress: ir.Chain{Default: policy.Allow}, Egress: ir.Chain{Default: policy.Allow}}
	d.HostEndpoints = map[string]*desired.HostEndpoint{
		"eth0": {
			Name: "uplink", Interface: "eth0", Normal: desired.Chains{Ingress: in(web), Egress: in(leave)},
			Forward: desired.Chains{Ingress: in(web), Egress: in(leave)}, PreDNAT: desired.Chains{Ingress: early},
			Untracked: desired.Chains{Ingress: early, Egress: allow.Egress},
		},
		"*": {Name: "rest", Interface: "*", Normal: desired.Chains{Ingress: in(), Egress: in()}, Forward: allow, PreDNAT: allow, Untracked: allow},
	}
	w.must(d)
	golden.Compare(t, "testdata/hosts.nft", w.listed())
	w.must(desired.Delta{HostEndpoints: map[string]*desired.HostEndpoint{"eth0": nil, "*": nil}})
	if text := w.listed(); strings.Contains(text, "hosts/") || strings.Contains(text, "mangle") {
		t.Errorf("host endpoints left something behind:\n%s", text)
	}
}

func TestARestartWritesNothing(t *testing.T) {
	host := kerneltest.New(t)
	newWall(t, host).must(shop())
	again := newWall(t, host)
	// First what the journal knows, then the rest.
	d := shop()
	again.must(desired.Delta{Settings: d.Settings, Endpoints: d.Endpoints})
	again.must(shop())
	if s := again.Stats(); s.Messages > 0 {
		t.Errorf("%d messages in %d transactions were written", s.Messages, s.Transactions)
	}
}

func TestUntilAllIsKnownWhatWasInheritedStays(t *testing.T) {
	host := kerneltest.New(t)
	first := newWall(t, host)
	first.must(shop())
	before := first.listed()
	young := newWall(t, host)
	settings := desired.DefaultSettings()
	// It knows one pod, and not yet what may happen to it; nothing of the other.
	a := pod("a", "10.1.0.2", "fd01::2")
	a.Ingress.Default, a.Egress.Default = policy.Deny, policy.Deny
	young.must(desired.Delta{
		Settings: &settings, Endpoints: endpoints(a),
		Sets:     map[ir.SetID]*desired.SetChange{"clients": {Kind: ir.Addrs, Whole: true}},
		Programs: map[ir.ProgramID]*ir.Program{shared: {ID: shared}},
	})
	if diff := cmp.Diff(before, young.listed()); diff != "" {
		t.Errorf("what a young agent changed (-before +after):\n%s", diff)
	}
	young.must(desired.Delta{Complete: true, Endpoints: endpoints(a), Sets: map[ir.SetID]*desired.SetChange{"clients": {Gone: true}}})
	text := young.listed()
	for _, gone := range []string{pod("b").Interface, "knp/shop/shared", "kor4-clients", "kor4-bad", "nat-postrouting", "10.1.0.3"} {
		if strings.Contains(text, gone) {
			t.Errorf("%s is still there", gone)
		}
	}
}

func TestUntilAllIsKnownHostEndpointsStayClosed(t *testing.T) {
	host := kerneltest.New(t)
	first := newWall(t, host)
	d := shop()
	closed := ir.Chain{Default: policy.Deny}
	d.HostEndpoints = map[string]*desired.HostEndpoint{"eth0": {
		Name: "uplink", Interface: "eth0", Normal: desired.Chains{Ingress: closed, Egress: closed},
		Forward: desired.Chains{Ingress: closed, Egress: closed},
	}}
	first.must(d)
	before := first.listed()
	young := newWall(t, host)
	young.must(desired.Delta{Settings: d.Settings, Endpoints: d.Endpoints})
	if diff := cmp.Diff(before, young.listed()); diff != "" {
		t.Errorf("what a young agent changed (-before +after):\n%s", diff)
	}
	young.must(desired.Delta{Complete: true})
	if strings.Contains(young.listed(), "hosts/") {
		t.Error("the host endpoint that is gone is still closed")
	}
}

func TestAPodThatTakesAnInterfaceOverInheritsNothing(t *testing.T) {
	host := kerneltest.New(t)
	newWall(t, host).must(shop())
	young := newWall(t, host)
	a := pod("a", "10.1.0.77")
	a.Ingress.Default = policy.Deny
	settings := desired.DefaultSettings()
	young.must(desired.Delta{Settings: &settings, Endpoints: endpoints(a)})
	m := host.Run("nft", "list", "map", "inet", "korat", "to")
	if before := pod("a", "10.1.0.2", "fd01::2"); !strings.Contains(m, nft.Attachment(a)) || strings.Contains(m, nft.Attachment(before)) {
		t.Errorf("the interface leads to\n%s", m)
	}
}

func TestARefusedPolicyClosesItsPodsAndNoOthers(t *testing.T) {
	for name, count := range map[string]int{"asked by one pod": 1, "asked by two": 2} {
		t.Run(name, func(t *testing.T) {
			w := newWall(t, kerneltest.New(t))
			d := shop()
			bad := program(policy.KubernetesNetworkPolicy, "shop", "bad", policy.Ingress)
			// Nobody told of the set.
			d.Programs[bad] = &ir.Program{ID: bad, Rules: []ir.Rule{{Action: policy.Allow, SrcSets: []ir.SetID{"unheard"}}}}
			var blamed []string
			for i := range count {
				e := pod([]string{"x", "y"}[i], []string{"10.1.0.8", "10.1.0.9"}[i])
				e.Ingress.Tiers = []ir.Tier{tier("default", policy.Deny, bad)}
				d.Endpoints[e.Interface] = e
				blamed = append(blamed, e.Interface)
			}
			if err := w.apply(d); err == nil || !strings.Contains(err.Error(), "shop") && !strings.Contains(err.Error(), "to/") {
				t.Errorf("Apply says %v", err)
			}
			t.Log(closed0(w))
			closed := w.Closed()
			for _, iface := range blamed {
				if closed[iface] == nil {
					t.Errorf("%s is not closed", iface)
				}
			}
			if len(closed) != count {
				t.Errorf("closed: %v", closed)
			}
			w.must(desired.Delta{Sets: map[ir.SetID]*desired.SetChange{"unheard": {Kind: ir.Addrs, Whole: true}}, Programs: map[ir.ProgramID]*ir.Program{
				bad: {ID: bad, Rules: []ir.Rule{{Action: policy.Allow, SrcSets: []ir.SetID{"unheard"}, Origin: 1}, {Origin: 2}}},
			}})
		})
	}
}

func TestAnInterfaceThatIsNoPodsStaysClosed(t *testing.T) {
	w := newWall(t, kerneltest.New(t))
	d := shop()
	e := pod("a", "10.1.0.9")
	e.Interface = "eth0"
	d.Endpoints["eth0"] = e
	if err := w.apply(d); err == nil {
		t.Error("Apply took it")
	}
	if closed := w.Closed(); len(closed) != 1 || closed["eth0"] == nil {
		t.Errorf("closed: %v", closed)
	}
	w.must(desired.Delta{Endpoints: map[string]*desired.Endpoint{"eth0": nil}})
}

func TestEditsOfOthersAreUndone(t *testing.T) {
	w := newWall(t, kerneltest.New(t))
	w.must(shop())
	before := w.listed()
	heard := make(chan struct{}, 1)
	go w.host.Do(func() {
		err := w.Watch(t.Context(), func() {
			select {
			case heard <- struct{}{}:
			default:
			}
		})
		if err != nil && !errors.Is(err, t.Context().Err()) {
			t.Errorf("watch: %v", err)
		}
	})
	for _, edit := range []string{
		"flush chain inet korat forward",
		"insert rule inet korat forward accept",
		"delete element inet korat from { " + pod("b").Interface + " }",
		"add element inet korat kor4-clients { 10.6.6.6 }",
		"flush chain inet korat knp/shop/shared/ingress",
		"add chain inet korat stranger",
		"delete table inet korat",
		"flush ruleset",
	} {
		w.host.Run("nft", edit)
		<-heard
		w.must(desired.Delta{})
		if diff := cmp.Diff(before, w.listed()); diff != "" {
			t.Errorf("after %q (-before +after):\n%s", edit, diff)
		}
	}
}

func TestUninstallLeavesNothing(t *testing.T) {
	w := newWall(t, kerneltest.New(t))
	w.host.Run("nft", "add table inet other")
	before := w.listed()
	w.must(shop())
	for range 2 {
		if err := w.Uninstall(t.Context()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, w.listed()); diff != "" {
			t.Errorf("left behind (-before +after):\n%s", diff)
		}
	}
	w.must(desired.Delta{})
	if !strings.Contains(w.listed(), "table inet korat") {
		t.Error("it does not come back when it is wanted again")
	}
}

func closed0(w *wall) any { return w.Refused() }
