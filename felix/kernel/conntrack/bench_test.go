package conntrack

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/kernel/nlsock"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

const newMessage = unix.NFNL_SUBSYS_CTNETLINK << 8

// creation makes an entry of a connection over UDP.
func creation(src, dst netip.Addr, port uint16) *nlsock.Request {
	r := nlsock.NewRequest(newMessage, unix.NLM_F_CREATE|unix.NLM_F_EXCL, header(unix.AF_INET))
	side := func(attr uint16, src, dst netip.Addr, srcPort, dstPort uint16) {
		r.Nest(attr|nlsock.NestedFlag, func() {
			r.Nest(tupleIP|nlsock.NestedFlag, func() { r.Attr(ip4Src, src.AsSlice()).Attr(ip4Dst, dst.AsSlice()) })
			r.Nest(tupleTransport|nlsock.NestedFlag, func() {
				r.Attr(transportNumber, []byte{unix.IPPROTO_UDP})
				r.Attr(transportSrc, binary.BigEndian.AppendUint16(nil, srcPort))
				r.Attr(transportDst, binary.BigEndian.AppendUint16(nil, dstPort))
			})
		})
	}
	side(attrOrig, src, dst, port, 53)
	side(attrReply, dst, src, 53, port)
	const attrTimeout = 7
	return r.Attr(attrTimeout, binary.BigEndian.AppendUint32(nil, 3600))
}

// crowd fills the table of a namespace with connections of a hundred pods.
func crowd(b *testing.B, n int) *table {
	b.Helper()
	ns := kerneltest.New(b)
	var t *table
	ns.Do(func() {
		var err error
		if t, err = open(); err != nil {
			b.Fatal(err)
		}
	})
	b.Cleanup(func() { t.conn.Close() })
	var all []*nlsock.Request
	for i := range n {
		pod := netip.AddrFrom4([4]byte{10, 1, 0, byte(i % 100)})
		peer := netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)})
		all = append(all, creation(pod, peer, uint16(1+i/100)))
	}
	err := t.conn.Batch(all, func(_ int, err error) {
		if err != nil {
			b.Fatal(err)
		}
	})
	if err != nil {
		b.Fatal(err)
	}
	return t
}

// BenchmarkTable tells what it costs to look for the connections of an address
// among many others: by deleting with the kernel's filter, by listing with it, and
// by listing all. Time of the CPU says more than that of the clock.
func BenchmarkTable(b *testing.B) {
	addr := map[netip.Addr]struct{}{netip.MustParseAddr("10.2.0.1"): {}}
	nothing := func(*entry) bool { return false }
	for _, n := range []int{100, 10_000, 200_000} {
		t := crowd(b, n)
		for name, ask := range map[string]func() error{
			"flush": func() error { return t.flush(addr, origSource) },
			"list":  func() error { _, err := t.purge(addr, nothing); return err },
			"all":   func() error { _, err := t.purge(nil, nothing); return err },
		} {
			b.Run(fmt.Sprintf("%s/entries=%d", name, n), func(b *testing.B) {
				begin := cpu(b)
				for b.Loop() {
					if err := ask(); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric((cpu(b)-begin)*1000/float64(b.N), "cpu-ms/op")
			})
		}
	}
}

func cpu(b *testing.B) float64 {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// BenchmarkJudge tells what it costs to ask policy about one connection: ten
// policies of ten rules, none of which matches.
func BenchmarkJudge(b *testing.B) {
	w := newWorld()
	d := desired.Delta{Programs: map[ir.ProgramID]*ir.Program{}}
	tier := ir.Tier{Name: "default", End: policy.Deny}
	for i := range 10 {
		id := ir.ProgramID{Policy: policy.Key{Name: fmt.Sprint(i)}, Direction: policy.Ingress}
		rules := make([]ir.Rule, 10)
		for j := range rules {
			rules[j] = ir.Rule{Action: policy.Allow, Protocol: policy.TCP, SrcSets: []ir.SetID{"s"}}
		}
		d.Programs[id] = &ir.Program{ID: id, Rules: rules}
		tier.Programs = append(tier.Programs, id)
	}
	pod := netip.MustParseAddr("10.1.0.2")
	d.Endpoints = map[string]*desired.Endpoint{"kora": {
		Interface: "kora", Addrs: []netip.Addr{pod}, Ingress: ir.Chain{Tiers: []ir.Tier{tier}}, Egress: ir.Chain{Default: policy.Allow},
	}}
	d.Sets = map[ir.SetID]*desired.SetChange{"s": {Whole: true, Add: map[ir.Member]struct{}{{Prefix: netip.PrefixFrom(pod, 32)}: {}}}}
	w.want(d)
	peer := netip.MustParseAddr("10.9.0.1")
	e := entry{orig: tuple{src: peer, dst: pod, protocol: policy.TCP, srcPort: 1, dstPort: 80}, reply: tuple{src: pod, dst: peer, srcPort: 80, dstPort: 1}}
	for name, judge := range map[string]func() judge{
		"the first of its kind": func() judge { return w.judge(nil) },
		"another": func() func() judge {
			j := w.judge(nil)
			return func() judge { return j }
		}(),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			begin := cpu(b)
			for b.Loop() {
				if !w.concerns(&e) || !judge().denies(&e) {
					b.Fatal("not denied")
				}
			}
			b.ReportMetric((cpu(b)-begin)*1e6/float64(b.N), "cpu-us/op")
		})
	}
}
