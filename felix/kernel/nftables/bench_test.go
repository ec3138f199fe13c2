package nftables_test

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

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

// meter measures also the processor time of this process, with the kernel's for
// it: neighbours on the machine disturb that least.
type meter struct {
	*testing.B
	used time.Duration
}

func newMeter(b *testing.B) *meter {
	b.StopTimer()
	return &meter{B: b}
}

// work runs what is measured.
func (m *meter) work(f func()) {
	before := cpu()
	m.StartTimer()
	f()
	m.StopTimer()
	m.add(cpu() - before)
}

func (m *meter) add(used time.Duration) {
	m.used += used
	m.ReportMetric(float64(m.used.Microseconds())/1000/float64(m.N), "cpu-ms/op")
}

func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkLoadChains(b *testing.B) {
	m := newMeter(b)
	for range b.N {
		table := open(b, kerneltest.New(b))
		m.work(func() {
			wantChains(table, benchChains)
			mustApply(b, table)
		})
	}
}

// BenchmarkLoadByNft is the floor beside BenchmarkLoadChains: the same chains by
// nft -f, whose processor time counts.
func BenchmarkLoadByNft(b *testing.B) {
	m := newMeter(b)
	n := kerneltest.New(b)
	table := open(b, n)
	wantChains(table, benchChains)
	mustApply(b, table)
	file := filepath.Join(b.TempDir(), "rules")
	if err := os.WriteFile(file, []byte(n.Run("nft", "list", "ruleset")), 0o600); err != nil {
		b.Fatal(err)
	}
	for range b.N {
		kerneltest.New(b).Do(func() {
			cmd := exec.Command("nft", "-f", file)
			b.StartTimer()
			err := cmd.Run()
			b.StopTimer()
			if err != nil {
				b.Error(err)
			}
			m.add(cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime())
		})
	}
}

func BenchmarkLoadMembers(b *testing.B) {
	m := newMeter(b)
	for range b.N {
		table := open(b, kerneltest.New(b))
		m.work(func() {
			wantMembers(table)
			mustApply(b, table)
		})
	}
}

func BenchmarkLoadPrefixes(b *testing.B) {
	m := newMeter(b)
	for range b.N {
		table := open(b, kerneltest.New(b))
		m.work(func() {
			table.WantSet(nftables.Set{Name: "nets", Key: v4, Interval: true})
			for i := range benchMembers {
				table.WantMembers("nets", nftables.Net(netip.PrefixFrom(address(i), 32)))
				if i%16 == 0 {
					table.WantMembers("nets", nftables.Net(netip.PrefixFrom(address(i), 29)))
				}
			}
			mustApply(b, table)
		})
	}
}

func BenchmarkChangeMembers(b *testing.B) {
	m := newMeter(b)
	table := open(b, kerneltest.New(b))
	wantMembers(table)
	mustApply(b, table)
	for round := range b.N {
		m.work(func() {
			for i := range 5_000 {
				table.UnwantMembers("hosts", nftables.Addr(address(round%2*benchMembers+i)))
				table.WantMembers("hosts", nftables.Addr(address((round+1)%2*benchMembers+i)))
			}
			mustApply(b, table)
		})
	}
}

func BenchmarkOneMember(b *testing.B) {
	for _, size := range []int{1_000, benchMembers} {
		b.Run(fmt.Sprint("of ", size), func(b *testing.B) {
			m := newMeter(b)
			table := open(b, kerneltest.New(b))
			wantMembers(table)
			table.SetMembers("hosts")
			for i := range size {
				table.WantMembers("hosts", nftables.Addr(address(i)))
			}
			mustApply(b, table)
			m.work(func() {
				for i := range b.N {
					k := nftables.Addr(address(benchMembers + i/2))
					if i%2 == 0 {
						table.WantMembers("hosts", k)
					} else {
						table.UnwantMembers("hosts", k)
					}
					mustApply(b, table)
				}
			})
		})
	}
}

// BenchmarkOneChain changes five rules. The kernel looks at all rules that packets
// can reach before it takes new ones, so it is not free of the table's size.
func BenchmarkOneChain(b *testing.B) {
	for _, size := range []int{200, benchChains} {
		b.Run(fmt.Sprint("of ", size), func(b *testing.B) {
			m := newMeter(b)
			table := open(b, kerneltest.New(b))
			wantChains(table, size)
			mustApply(b, table)
			m.work(func() {
				for i := range b.N {
					table.WantChain(benchChain(7, uint16(100+i%2)))
					mustApply(b, table)
				}
			})
		})
	}
}

// BenchmarkRestart is a process that finds everything as it wants it: chains,
// rules, elements and members are read, and nothing is written.
func BenchmarkRestart(b *testing.B) {
	m := newMeter(b)
	n := kerneltest.New(b)
	want := func(table *nftables.Table) {
		wantMembers(table)
		wantChains(table, benchChains)
	}
	table := open(b, n)
	want(table)
	mustApply(b, table)
	for range b.N {
		table := start(b, n)
		want(table)
		table.AllowRemoval()
		writesNothing(b, table, func() {
			m.work(func() {
				mustResync(b, table)
				mustApply(b, table)
			})
		})
	}
}
