package nftables_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/kernel/nftables"
)

// The size of the benchmarks: 50,000 rules in 10,000 chains, 100,000 members.
const (
	benchChains  = 10_000
	benchMembers = 100_000
)

// policyRule is a rule as policies have them: a protocol, a port, who may.
func policyRule(set string, port uint16) nftables.Rule {
	return nftables.Rule{Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, &expr.Cmp{Register: 1, Data: []byte{unix.NFPROTO_IPV4}},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Register: 1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Register: 1, Data: []byte{byte(port >> 8), byte(port)}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
		&expr.Lookup{SourceRegister: 1, SetName: set},
		&expr.Verdict{Kind: expr.VerdictAccept},
	}}
}

func benchChain(i int, port uint16) nftables.Chain {
	c := nftables.Chain{Name: fmt.Sprintf("pi-%016x", i)}
	for r := range 5 {
		c.Rules = append(c.Rules, policyRule("hosts", port+uint16(r)))
	}
	return c
}

func address(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

func wantChains(t *nftables.Table, n int) {
	t.WantSet(nftables.Set{Name: "hosts", Key: []nftables.Field{nftables.IPv4Addr}})
	t.WantMap(nftables.Map{Name: "to", Key: []nftables.Field{nftables.IfName}})
	for i := range n {
		c := benchChain(i, 80)
		t.WantChain(c)
		t.WantVerdict("to", nftables.Interface(fmt.Sprintf("kor%011x", i)), nftables.Goto(c.Name))
	}
	t.WantChain(nftables.Chain{Name: "forward", Base: &forward, Rules: []nftables.Rule{{Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1}, &expr.Lookup{SourceRegister: 1, SetName: "to", IsDestRegSet: true},
	}}}})
}

func wantMembers(t *nftables.Table) {
	t.WantSet(nftables.Set{Name: "hosts", Key: []nftables.Field{nftables.IPv4Addr}})
	for i := range benchMembers {
		t.WantMembers("hosts", nftables.Addr(address(i)))
	}
}

func BenchmarkLoadChains(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		table := open(b, kerneltest.New(b))
		b.StartTimer()
		wantChains(table, benchChains)
		mustApply(b, table)
		b.StopTimer()
		b.ReportMetric(float64(table.Stats().Bytes), "bytes")
		b.StartTimer()
	}
}

func BenchmarkLoadMembers(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		table := open(b, kerneltest.New(b))
		b.StartTimer()
		wantMembers(table)
		mustApply(b, table)
	}
}
