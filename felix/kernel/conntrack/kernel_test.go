package conntrack

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

func eachFamily(t *testing.T, test func(t *testing.T, v6 bool)) {
	for _, v6 := range []bool{false, true} {
		t.Run(fmt.Sprintf("IPv%d", 4+2*family(v6)), func(t *testing.T) { test(t, v6) })
	}
}

// eachPlane runs a test over each data plane and family.
func eachPlane(t *testing.T, test func(t *testing.T, over plane, v6 bool)) {
	for name, over := range map[string]plane{"nft": overNFT, "iptables": overIPTables} {
		t.Run(name, func(t *testing.T) {
			eachFamily(t, func(t *testing.T, v6 bool) { test(t, over, v6) })
		})
	}
}

func TestItem26TheConnectionsOfAnAddressGoWithItsOwner(t *testing.T) {
	eachPlane(t, func(t *testing.T, over plane, v6 bool) {
		l := newLabOver(t, over, false)
		served := l.connect("a", "b", "tcp", v6)
		opened := l.connect("b", "outside", "udp", v6)
		others := l.connect("a", "outside", "tcp", v6)
		b, a := l.sites["b"], l.sites["a"]
		if n := len(l.entries(b.addrs[family(v6)])); n != 2 {
			t.Fatalf("b has %d connections, want 2", n)
		}

		// Another pod gets b's address, and nobody may talk to it.
		next := l.endpoint("b", allDenied, allDenied)
		next.Generation++
		l.apply(desired.Delta{Endpoints: map[string]*desired.Endpoint{"korb": next}})
		if left := l.entries(b.addrs[family(v6)]); len(left) != 0 {
			t.Errorf("the new owner of the address inherits %+v", left)
		}
		if served.asks() || opened.tells() || opened.asks() {
			t.Error("the new owner of the address is in connections of the old one")
		}
		if !others.asks() || !others.tells() {
			t.Error("a connection of somebody else was cut")
		}

		l.apply(desired.Delta{Endpoints: map[string]*desired.Endpoint{"kora": nil, "korb": nil}})
		if left := l.entries(a.addrs[family(v6)]); len(left) != 0 {
			t.Errorf("a pod that is gone has %+v", left)
		}
		if l.flusher.table.reads != 1 { // the one at the start
			t.Errorf("everything was read %d times for four addresses", l.flusher.table.reads)
		}
	})
}

// TestItem26ConnectionsBehindAService: the address stands in the answers only.
func TestItem26ConnectionsBehindAService(t *testing.T) {
	l := newLab(t, false)
	f, b := l.service("10.96.0.1"), l.sites["b"].addrs[0]
	if len(l.entries(b)) != 1 {
		t.Fatal("the connection is not there")
	}
	l.apply(desired.Delta{Endpoints: map[string]*desired.Endpoint{"korb": nil}})
	if left := l.entries(b); len(left) != 0 {
		t.Errorf("left are %+v", left)
	}
	if f.asks() {
		t.Error("a pod that is gone is reached")
	}
}

// service connects a to an address that is translated to b's.
func (l *lab) service(vip string) *flow {
	l.t.Helper()
	b := l.sites["b"].addrs[0]
	l.host.Run("iptables", "-t", "nat", "-A", "PREROUTING", "-d", vip, "-p", "tcp", "--dport", "80", "-j", "DNAT", "--to", b.String()+":8080")
	return l.connectTo("a", "b", "tcp", netip.MustParseAddr(vip), 80)
}

// TestConnectionsToAFloatingAddressEndWhenItLeadsElsewhere: it stands in what was
// asked for, as that of a service does. The pod keeps its other connections.
func TestConnectionsToAFloatingAddressEndWhenItLeadsElsewhere(t *testing.T) {
	l := newLab(t, false)
	l.service("10.96.0.1")
	others := l.connect("b", "outside", "udp", false)
	b := l.sites["b"].addrs[0]
	if n := len(l.entries(b)); n != 2 {
		t.Fatalf("b has %d connections, want 2", n)
	}
	e := l.endpoint("b", allAllowed, allAllowed)
	e.Floating = []netip.Addr{netip.MustParseAddr("10.96.0.1")}
	l.apply(desired.Delta{Endpoints: map[string]*desired.Endpoint{"korb": e}})
	if left := l.entries(b); len(left) != 1 {
		t.Errorf("left are %+v, want what did not ask for the floating address", left)
	}
	if !others.asks() || !others.tells() {
		t.Error("another connection of the pod was cut")
	}
}

func TestItem26ManyAddressesAreOneList(t *testing.T) {
	l := newLab(t, false)
	f := l.connect("a", "outside", "tcp", false)
	kept := l.connect("b", "outside", "udp", false)
	endpoints := map[string]*desired.Endpoint{"kora": l.endpoint("a", allAllowed, allAllowed)}
	addr := netip.MustParseAddr("10.7.0.1")
	for range 2 * fewToFlush {
		endpoints["kora"].Addrs = append(endpoints["kora"].Addrs, addr)
		addr = addr.Next()
	}
	l.apply(desired.Delta{Endpoints: endpoints})
	if !f.asks() {
		t.Fatal("an endpoint that got addresses lost a connection of another")
	}
	reads := l.flusher.table.reads
	l.apply(desired.Delta{Endpoints: map[string]*desired.Endpoint{"kora": nil}})
	if left := l.entries(l.sites["a"].addrs[0]); len(left) != 0 || l.flusher.table.reads != reads+1 {
		t.Errorf("left are %+v after %d lists", left, l.flusher.table.reads-reads)
	}
	if !kept.asks() || !kept.tells() {
		t.Error("a connection of somebody else was cut")
	}
}

func TestAnOldKernelThatDoesNotFilterIsAskedForEverything(t *testing.T) {
	l := newLab(t, true)
	f := l.connect("a", "b", "tcp", false)
	l.flusher.table.unfiltered, l.rechecker.table.unfiltered = true, true
	l.want("b", allDenied, allAllowed)
	if f.asks() {
		t.Error("a denied connection was not cut")
	}
	l.apply(desired.Delta{Endpoints: map[string]*desired.Endpoint{"korb": nil}})
	if left := l.entries(l.sites["b"].addrs[0]); len(left) != 0 {
		t.Errorf("left are %+v", left)
	}
}

// TestItem26NobodyGetsAnAddressThatIsNotClean: when the kernel refuses, the endpoint
// that has the address stays closed.
func TestItem26NobodyGetsAnAddressThatIsNotClean(t *testing.T) {
	l := newLab(t, false)
	l.connect("a", "b", "tcp", false)
	if err := l.flusher.Close(); err != nil { // what is asked of the kernel now fails
		t.Fatal(err)
	}
	next := l.endpoint("b", allAllowed, allAllowed)
	next.Generation++
	l.flusher.Want(desired.Delta{Endpoints: map[string]*desired.Endpoint{"kora": nil, "korb": next}})
	if err := l.flusher.Apply(t.Context()); err == nil {
		t.Error("nothing failed")
	}
	if closed := l.flusher.Closed(); len(closed) != 1 || closed["korb"] == nil {
		t.Errorf("closed are %v, want korb", closed)
	}
	l.host.Do(func() {
		t, err := open()
		if err != nil {
			l.t.Fatal(err)
		}
		l.flusher.table = t
	})
	if err := l.flusher.Apply(t.Context()); err != nil || len(l.flusher.Closed()) != 0 {
		t.Errorf("after it works again: %v, closed are %v", err, l.flusher.Closed())
	}
	if left := l.entries(l.sites["b"].addrs[0]); len(left) != 0 {
		t.Errorf("left are %+v", left)
	}
}

// TestItem26WhatWasVacatedWhileNoAgentRan: entries of addresses in own blocks that
// nobody has go at the start, those of running pods and of other nodes stay.
func TestItem26WhatWasVacatedWhileNoAgentRan(t *testing.T) {
	l := newLab(t, false)
	l.connect("b", "outside", "tcp", false)
	l.connect("outside", "b", "udp", true)
	l.connect("a", "outside", "tcp", false)
	tell := l.startFlusher()
	tell(desired.Delta{
		Endpoints: map[string]*desired.Endpoint{"kora": l.endpoint("a", allAllowed, allAllowed)},
		Routes: map[netip.Prefix]*desired.Route{
			netip.MustParsePrefix("10.1.0.0/26"): {Kind: desired.Unreachable}, netip.MustParsePrefix("fd01::/122"): {Kind: desired.Unreachable},
		},
	})
	if len(l.entries(l.sites["b"].addrs[0])) == 0 {
		t.Error("something was deleted before all was known")
	}
	tell(desired.Delta{Complete: true, Learned: true})
	for _, a := range l.sites["b"].addrs {
		if left := l.entries(a); len(left) != 0 {
			t.Errorf("an address that nobody has has %+v", left)
		}
	}
	if len(l.entries(l.sites["a"].addrs[0])) == 0 {
		t.Error("the connection of a running pod is forgotten")
	}
}

// startFlusher starts the Flusher of an agent's new life, and returns what tells it of
// a change and has it applied.
func (l *lab) startFlusher() (tell func(desired.Delta)) {
	l.t.Helper()
	var f *Flusher
	l.host.Do(func() {
		var err error
		if f, err = NewFlusher(); err != nil {
			l.t.Fatal(err)
		}
	})
	l.t.Cleanup(func() { f.Close() })
	return func(d desired.Delta) {
		l.t.Helper()
		f.Want(d)
		if err := f.Apply(l.t.Context()); err != nil {
			l.t.Fatal(err)
		}
	}
}

// TestItem26WhatOtherNodesHaveStays: whatever leads to another node's pod, and while
// nothing does, its connections are no business of a starting agent's.
func TestItem26WhatOtherNodesHaveStays(t *testing.T) {
	pool, block, part := netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("192.168.7.0/26"), netip.MustParsePrefix("192.168.7.8/29")
	for name, routes := range map[string]map[netip.Prefix]*desired.Route{
		"part of an own block, by BGP":             {block: {Kind: desired.Unreachable}, part: {Kind: desired.Via}},
		"part of an own block, through a tunnel":   {block: {Kind: desired.Unreachable}, part: {Kind: desired.Tunneled}},
		"block in a pool that is always encrypted": {pool: {Kind: desired.Closed}, block: {Kind: desired.Tunneled}},
		"block to which nothing encrypts":          {pool: {Kind: desired.Closed}, block: {Kind: desired.Closed}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, false)
			l.connect("a", "outside", "udp", false)
			tell := l.startFlusher()
			known, late := maps.Clone(routes), maps.Clone(routes)
			delete(known, part)
			tell(desired.Delta{
				Endpoints: map[string]*desired.Endpoint{"kora": l.endpoint("a", allAllowed, allAllowed)}, Routes: known, Complete: true,
			})
			tell(desired.Delta{Routes: late, Learned: true})
			if len(l.entries(l.sites["outside"].addrs[0])) == 0 {
				t.Error("the connection of a running pod to another node is forgotten")
			}
		})
	}
}

func TestItem27ConnectionsLiveOnByDefault(t *testing.T) {
	eachFamily(t, func(t *testing.T, v6 bool) {
		l := newLab(t, false)
		tcp, udp := l.connect("a", "b", "tcp", v6), l.connect("a", "outside", "udp", v6)
		l.want("b", allDenied, allDenied)
		l.want("a", allDenied, allDenied)
		if !tcp.asks() || !tcp.tells() || !udp.asks() || !udp.tells() {
			t.Error("a connection was cut")
		}
		if looseness(l) != "1" {
			t.Error("a parameter of the node was touched")
		}
	})
}

// looseness reads the parameter that Rechecker sets.
func looseness(l *lab) (value string) {
	l.t.Helper()
	l.host.Do(func() {
		b, err := os.ReadFile(pickUp)
		if err != nil {
			l.t.Fatal(err)
		}
		value = strings.TrimSpace(string(b))
	})
	return value
}

func TestItem27ConnectionsAreCutWhenTheyAreToBeRechecked(t *testing.T) {
	for name, deny := range map[string]func(*lab){
		"ingress of the destination": func(l *lab) { l.want("b", allDenied, allAllowed) },
		"egress of the source":       func(l *lab) { l.want("a", allAllowed, allDenied) },
	} {
		t.Run(name, func(t *testing.T) {
			eachPlane(t, func(t *testing.T, over plane, v6 bool) {
				l := newLabOver(t, over, true)
				cut, kept := l.connect("a", "b", "tcp", v6), l.connect("b", "outside", "tcp", v6)
				l.want("a", allAllowed, allAllowed) // nothing changes for anybody
				if !cut.asks() || !cut.tells() {
					t.Fatal("an allowed connection was cut")
				}
				deny(l)
				// The server goes first: its packets must not open the connection anew.
				if cut.tells() || cut.asks() || cut.tells() {
					t.Error("a denied connection goes on")
				}
				if !kept.asks() || !kept.tells() {
					t.Error("an allowed connection was cut")
				}
			})
		})
	}
}

func TestItem27OtherProtocols(t *testing.T) {
	eachFamily(t, func(t *testing.T, v6 bool) {
		l := newLab(t, true)
		a, b := l.sites["a"].addrs[family(v6)], l.sites["b"].addrs[family(v6)]
		udp := l.connect("a", "b", "udp", v6)
		l.sites["a"].ns.Run("ping", "-c1", "-W2", b.String())
		// Nothing here speaks SCTP, but the node tracks it.
		l.host.Run("conntrack", "-I", "-s", a.String(), "-d", b.String(), "-p", "sctp", "--sport", "1000", "--dport", "2000",
			"--state", "ESTABLISHED", "--orig-vtag", "1", "--reply-vtag", "2", "-t", "100")
		if n := len(l.entries(b)); n != 3 {
			t.Fatalf("%d connections, want 3", n)
		}
		message, kind := policy.ICMP, uint8(8)
		if v6 {
			message, kind = policy.ICMPv6, 128
		}
		only := func(r ir.Rule) ir.Chain {
			id := ir.ProgramID{Policy: policy.Key{Name: "only"}, Direction: policy.Ingress}
			l.apply(desired.Delta{Programs: map[ir.ProgramID]*ir.Program{id: {ID: id, Rules: []ir.Rule{r}}}})
			return ir.Chain{Tiers: []ir.Tier{{Programs: []ir.ProgramID{id}}}}
		}
		sctp := ir.Rule{Action: policy.Allow, Protocol: policy.SCTP, DstPorts: []ir.PortRange{{First: 2000, Last: 2000}}}
		ping := ir.Rule{Action: policy.Allow, Protocol: message, Message: policy.Message{Compare: policy.MessageType, Type: kind}}
		l.want("b", only(ping), allAllowed)
		if left := l.entries(b); len(left) != 1 || left[0].orig.protocol != message {
			t.Errorf("only echo requests are allowed: left are %+v", left)
		}
		if udp.asks() {
			t.Error("a denied flow over UDP goes on")
		}
		l.host.Run("conntrack", "-I", "-s", a.String(), "-d", b.String(), "-p", "sctp", "--sport", "1000", "--dport", "2000",
			"--state", "ESTABLISHED", "--orig-vtag", "1", "--reply-vtag", "2", "-t", "100")
		only(sctp)
		if left := l.entries(b); len(left) != 1 || left[0].orig.protocol != policy.SCTP {
			t.Errorf("only SCTP is allowed: left are %+v", left)
		}
	})
}

// TestItem27AChangedSetCutsItsMember: a set that a rule names loses an address.
func TestItem27AChangedSetCutsItsMember(t *testing.T) {
	l := newLab(t, true)
	id := ir.ProgramID{Policy: policy.Key{Name: "p"}, Direction: policy.Ingress}
	member := func(name string) map[ir.Member]struct{} {
		return map[ir.Member]struct{}{{Prefix: netip.PrefixFrom(l.sites[name].addrs[0], 32)}: {}}
	}
	both := member("a")
	for m := range member("outside") {
		both[m] = struct{}{}
	}
	l.apply(desired.Delta{
		Sets:      map[ir.SetID]*desired.SetChange{"s": {Kind: ir.Addrs, Whole: true, Add: both}},
		Programs:  map[ir.ProgramID]*ir.Program{id: {ID: id, Rules: []ir.Rule{{Action: policy.Allow, SrcSets: []ir.SetID{"s"}}}}},
		Endpoints: map[string]*desired.Endpoint{"korb": l.endpoint("b", ir.Chain{Tiers: []ir.Tier{{Programs: []ir.ProgramID{id}}}}, allAllowed)},
	})
	cut, kept := l.connect("a", "b", "tcp", false), l.connect("outside", "b", "udp", false)
	reads := l.rechecker.table.reads
	l.apply(desired.Delta{Sets: map[ir.SetID]*desired.SetChange{"s": {Kind: ir.Addrs, Del: member("a")}}})
	if cut.tells() || cut.asks() {
		t.Error("a denied connection goes on")
	}
	if !kept.asks() || !kept.tells() {
		t.Error("an allowed connection was cut")
	}
	if l.rechecker.table.reads != reads {
		t.Error("everything was read for one address")
	}
}

// TestItem27WhatIsNotInForceWaits: a connection that is cut before its rules are in
// the kernel would come back by the old ones.
func TestItem27WhatIsNotInForceWaits(t *testing.T) {
	l := newLab(t, true)
	f := l.connect("a", "b", "tcp", false)
	l.closed = map[string]error{"korb": errors.New("refused")}
	l.want("b", allDenied, allAllowed)
	if !f.asks() {
		t.Error("a connection was cut although its rules are not in force")
	}
	l.closed = nil
	l.apply(desired.Delta{})
	if f.asks() || f.tells() {
		t.Error("a denied connection goes on after its rules came into force")
	}
}

func TestItem27SwitchedOnAndOff(t *testing.T) {
	l := newLab(t, false)
	f := l.connect("a", "b", "tcp", false)
	l.want("b", allDenied, allAllowed)
	set := func(on bool) {
		s := desired.DefaultSettings()
		s.Recheck = on
		l.apply(desired.Delta{Settings: &s, Endpoints: map[string]*desired.Endpoint{
			"kora": l.endpoint("a", allAllowed, allAllowed), "korb": l.endpoint("b", allDenied, allAllowed), // all is told again
		}})
	}
	set(true)
	if looseness(l) != "0" || f.tells() || f.asks() {
		t.Error("a connection that was denied before goes on")
	}
	l.host.Run("sysctl", "-qw", "net.netfilter.nf_conntrack_tcp_loose=1")
	if err := l.rechecker.Resync(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.apply(desired.Delta{})
	if looseness(l) != "0" {
		t.Error("what somebody else changed was not mended")
	}
	set(false)
	if looseness(l) != "1" || l.rechecker.world != nil {
		t.Error("something stays after it was switched off")
	}
}
