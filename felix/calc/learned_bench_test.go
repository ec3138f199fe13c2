package calc_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	"github.com/koratnet/korat/felix/calc"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
)

// BenchmarkChangeOfABlock: one of a pool in VXLAN changes hands between two other
// nodes, where few and where many routes are learned, by turns. Four of them are
// inside of the block, in both.
func BenchmarkChangeOfABlock(b *testing.B) {
	const batch = 100
	learnt := []int{100, 1_000, 10_000}
	var engines []*calc.Engine
	for _, routes := range learnt {
		engines = append(engines, learnedCluster(routes))
	}
	meters := make([]meter, len(learnt))
	done := 0
	for b.Loop() {
		for i, e := range engines {
			meters[i].start()
			for k := range batch {
				e.Put(block("10.0.0.0/26", fmt.Sprint("node-", (done+k+1)%2)))
				e.Flush()
			}
			meters[i].stop()
		}
		done += batch
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(meters[2].took.Nanoseconds())/1000/float64(done), "us")
	b.ReportMetric(float64(meters[1].took)/float64(meters[0].took), "1k-times-of-100")
	b.ReportMetric(float64(meters[2].took)/float64(meters[0].took), "10k-times-of-100")
	b.ReportMetric(growthLimit, "limit-times")
	runtime.KeepAlive(engines)
}

// learnedCluster returns an engine that knows two other nodes, a block of one, and
// routes that a router taught of addresses of the pool: four inside of each /26.
func learnedCluster(routes int) *calc.Engine {
	wrapped := pool("10.0.0.0/8")
	wrapped.Value.(*event.Pool).Modes.Sends.Encapsulation = desired.VXLAN
	events := evs{node("me", "", "172.16.0.1"), node("node-0", "", "172.16.0.2"), node("node-1", "", "172.16.0.3"), wrapped, block("10.0.0.0/26", "node-0")}
	for i := range routes {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 12), byte(i >> 4), byte(i << 4)})
		events = append(events, learned(netip.PrefixFrom(a, 32).String(), "172.16.0.254"))
	}
	return learn(events)
}
