package nftables_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/kernel/nftables"
)

// TestMain makes histories fewer than rapid's default, because each is a hundred
// system calls; -rapid.checks overrides it.
func TestMain(m *testing.M) {
	flag.Set("rapid.checks", "25")
	flag.Parse()
	m.Run()
}

// tester is a test, or one history of rapid.
type tester interface {
	Helper()
	Context() context.Context
	Cleanup(func())
	Fatal(...any)
	Fatalf(string, ...any)
	Errorf(string, ...any)
}

// start returns a Table that knows nothing, as of a process that begins.
func start(t tester, n *kerneltest.Namespace) (table *nftables.Table) {
	t.Helper()
	n.Do(func() {
		var err error
		if table, err = nftables.Open(nftables.Inet, "korat"); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { table.Close() })
	return table
}

// open returns a Table that has read what is there and may remove it.
func open(t tester, n *kerneltest.Namespace) *nftables.Table {
	t.Helper()
	table := start(t, n)
	mustResync(t, table)
	table.AllowRemoval()
	return table
}

func mustApply(t tester, table *nftables.Table) {
	t.Helper()
	if err := table.Apply(t.Context()); err != nil {
		t.Fatalf("Apply: %v", err)
	}
}

func mustResync(t tester, table *nftables.Table) {
	t.Helper()
	if err := table.Resync(t.Context()); err != nil {
		t.Fatalf("Resync: %v", err)
	}
}

// writesNothing checks that no message is sent by what f does.
func writesNothing(t tester, table *nftables.Table, f func()) {
	t.Helper()
	before := table.Stats()
	f()
	if after := table.Stats(); after != before {
		t.Errorf("something was written: %+v, before %+v", after, before)
	}
}

// listed returns what nft lists of our table, as sorted lines: of each chain, set
// and map one, and the rules of a chain in order.
func listed(t tester, n *kerneltest.Namespace) []string {
	t.Helper()
	var all struct{ Nftables []map[string]map[string]any }
	if err := json.Unmarshal([]byte(n.Run("nft", "-j", "list", "ruleset")), &all); err != nil {
		t.Fatal(err)
	}
	lines := []string{}
	rules := map[string][]string{}
	for _, object := range all.Nftables {
		for kind, what := range object {
			if kind == "metainfo" || what["family"] != "inet" || what["table"] != "korat" && kind != "table" || kind == "table" && what["name"] != "korat" {
				continue
			}
			delete(what, "handle")
			if elements, ok := what["elem"].([]any); ok {
				slices.SortFunc(elements, func(a, b any) int { return strings.Compare(text(t, a), text(t, b)) })
			}
			if kind == "rule" {
				key := fmt.Sprint(what["chain"])
				rules[key] = append(rules[key], kind+" "+text(t, what))
				continue
			}
			lines = append(lines, kind+" "+text(t, what))
		}
	}
	for _, of := range rules {
		lines = append(lines, strings.Join(of, "\n"))
	}
	slices.Sort(lines)
	return lines
}

func text(t tester, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// sameAsNew checks that n lists what a new namespace does in which want is told
// to a new Table.
func sameAsNew(t tester, n, other *kerneltest.Namespace, want func(*nftables.Table)) {
	t.Helper()
	other.Run("nft", "flush", "ruleset")
	table := start(t, other)
	want(table)
	table.AllowRemoval()
	mustApply(t, table)
	if diff := cmp.Diff(listed(t, other), listed(t, n)); diff != "" {
		t.Errorf("the table (-want +got):\n%s", diff)
	}
}

var (
	v4   = []nftables.Field{nftables.IPv4Addr}
	v6   = []nftables.Field{nftables.IPv6Addr}
	port = []nftables.Field{nftables.IPv4Addr, nftables.L4Proto, nftables.L4Port}
	name = []nftables.Field{nftables.IfName}
)

func addrs(texts ...string) (all []nftables.Key) {
	for _, s := range texts {
		all = append(all, nftables.Addr(netip.MustParseAddr(s)))
	}
	return all
}

func nets(texts ...string) (all []nftables.Key) {
	for _, s := range texts {
		all = append(all, nftables.Net(netip.MustParsePrefix(s)))
	}
	return all
}

func service(addr string, number uint16) nftables.Key {
	return nftables.Join(addrs(addr)[0], nftables.Protocol(unix.IPPROTO_TCP), nftables.Port(number))
}

// from is a rule about packets whose source is in a set.
func from(set string, v expr.VerdictKind, chain string) nftables.Rule {
	return nftables.Rule{Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, &expr.Cmp{Register: 1, Data: []byte{unix.NFPROTO_IPV4}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
		&expr.Lookup{SourceRegister: 1, SetName: set},
		&expr.Verdict{Kind: v, Chain: chain},
	}, Comment: "from " + set}
}

func always(v expr.VerdictKind, chain string) nftables.Rule {
	return nftables.Rule{Exprs: []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: v, Chain: chain}}}
}

// dispatch looks up the interface that a packet leaves by.
func dispatch(m string) nftables.Rule {
	return nftables.Rule{Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1}, &expr.Lookup{SourceRegister: 1, SetName: m, IsDestRegSet: true},
	}}
}

var forward = nftables.Hook{Type: nftables.Filter, Number: nftables.Forward}

// wantSmall wants a table in which there is one of everything.
func wantSmall(table *nftables.Table) {
	table.WantSet(nftables.Set{Name: "nets", Key: v4, Interval: true})
	table.SetMembers("nets", nets("10.0.0.0/8", "10.1.0.0/16", "11.0.0.0/8", "192.168.1.1/32", "255.255.255.255/32", "0.0.0.0/32")...)
	table.WantSet(nftables.Set{Name: "hosts", Key: v6})
	table.SetMembers("hosts", addrs("fd00::1", "fd00::2")...)
	table.WantSet(nftables.Set{Name: "services", Key: port})
	table.SetMembers("services", service("10.1.2.3", 80), service("10.1.2.4", 443))
	table.WantMap(nftables.Map{Name: "to", Key: name})
	table.WantVerdict("to", nftables.Interface("kor1"), nftables.Goto("pod"))
	table.WantVerdict("to", nftables.Interface("kor2"), nftables.Drop)
	table.WantChain(nftables.Chain{Name: "pod", Rules: []nftables.Rule{from("nets", expr.VerdictAccept, ""), always(expr.VerdictDrop, "")}})
	table.WantChain(nftables.Chain{Name: "forward", Base: &forward, Rules: []nftables.Rule{dispatch("to"), always(expr.VerdictJump, "pod")}})
}
