package nftables_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/kernel/nftables"
)

func open(t testing.TB, n *kerneltest.Namespace) (table *nftables.Table) {
	t.Helper()
	n.Do(func() {
		var err error
		if table, err = nftables.Open(nftables.Inet, "korat"); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { table.Close() })
	if err := table.Resync(t.Context()); err != nil {
		t.Fatalf("Resync: %v", err)
	}
	return table
}

func mustApply(t testing.TB, table *nftables.Table) {
	t.Helper()
	if err := table.Apply(t.Context()); err != nil {
		t.Fatalf("Apply: %v", err)
	}
}

func TestEveryKindOfObjectIsWrittenAndSurvivesTheTableBeingDeleted(t *testing.T) {
	n := kerneltest.New(t)
	table := open(t, n)
	table.WantSet(nftables.Set{Name: "nets", Key: []nftables.Field{nftables.IPv4Addr}, Interval: true})
	for _, p := range []string{"10.0.0.0/8", "10.1.0.0/16", "11.0.0.0/8", "192.168.1.1/32", "255.255.255.255/32", "0.0.0.0/32"} {
		table.WantMembers("nets", nftables.Net(netip.MustParsePrefix(p)))
	}
	table.WantSet(nftables.Set{Name: "hosts", Key: []nftables.Field{nftables.IPv6Addr}})
	table.WantMembers("hosts", nftables.Addr(netip.MustParseAddr("fd00::1")))
	table.WantSet(nftables.Set{Name: "ports", Key: []nftables.Field{nftables.IPv4Addr, nftables.L4Proto, nftables.L4Port}})
	table.WantMembers("ports", nftables.Join(nftables.Addr(netip.MustParseAddr("10.1.2.3")), nftables.Protocol(6), nftables.Port(80)))
	table.WantMap(nftables.Map{Name: "to", Key: []nftables.Field{nftables.IfName}})
	table.WantVerdict("to", nftables.Interface("kor123"), nftables.Goto("pod"))
	table.WantChain(nftables.Chain{Name: "pod", Rules: []nftables.Rule{
		{Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, &expr.Cmp{Register: 1, Data: []byte{unix.NFPROTO_IPV4}},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
			&expr.Lookup{SourceRegister: 1, SetName: "nets"}, &expr.Verdict{Kind: expr.VerdictAccept},
		}, Comment: "hello"},
	}})
	table.WantChain(nftables.Chain{Name: "forward", Base: &nftables.Hook{Type: nftables.Filter, Number: nftables.Forward, Drop: true}, Rules: []nftables.Rule{
		{Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1}, &expr.Lookup{SourceRegister: 1, SetName: "to", IsDestRegSet: true},
		}},
	}})
	table.AllowRemoval()
	mustApply(t, table)
	want := n.Run("nft", "list", "ruleset")
	for _, line := range []string{
		"elements = { 0.0.0.0, 10.0.0.0/8,", "elements = { 10.1.2.3 . tcp . 80 }", `elements = { "kor123" : goto pod }`,
		`ip saddr @nets accept comment "hello"`, "type filter hook forward priority filter; policy drop;", "oifname vmap @to",
	} {
		if !strings.Contains(want, line) {
			t.Errorf("no line %q in\n%s", line, want)
		}
	}
	n.Run("nft", "delete", "table", "inet", "korat")
	if err := table.Resync(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustApply(t, table)
	if diff := cmp.Diff(want, n.Run("nft", "list", "ruleset")); diff != "" {
		t.Error("the table after it was deleted (-want +got):\n" + diff)
	}
}
