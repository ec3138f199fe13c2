package calc_test

import (
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/koratnet/korat/felix/calc"
	"github.com/koratnet/korat/felix/event"
)

// What the largest cluster that is measured may cost.
const (
	loadLimit   = 3 * time.Second // everything at once, as after a restart
	heapLimit   = 400             // MB, everything the engine holds
	growthLimit = 2               // times the cost of a change with ten times the pods
)

var sizes = []int{25_000, 250_000}

// change is a kind of change and what one may cost. step returns the events of
// the nth one, which undo those before as often as they do something new.
type change struct {
	name  string
	limit time.Duration
	step  func(c cluster, n int) []event.Event
}

var changes = []change{
	{"RemotePodRelabelled", 30 * time.Microsecond, func(c cluster, n int) []event.Event {
		p := *c.pod(c.remote(n), n/1000+1).Value.(*event.Pod)
		p.Addrs = c.pod(c.remote(n), 0).Value.(*event.Pod).Addrs
		return []event.Event{event.Set(p.Namespace+"/"+p.Name, &p)}
	}},
	{"RemotePodMoved", 30 * time.Microsecond, func(c cluster, n int) []event.Event {
		p := *c.pod(c.remote(n), n/1000+1).Value.(*event.Pod)
		p.Labels = c.pod(c.remote(n), 0).Value.(*event.Pod).Labels
		return []event.Event{event.Set(p.Namespace+"/"+p.Name, &p)}
	}},
	// The sets of policies that were not active here are filled, which costs what
	// they hold. Here they have 2,000 members, in both clusters.
	{"LocalPodWithNewPolicies", 2 * time.Millisecond, func(c cluster, n int) []event.Event {
		return comeAndGo(n, c.newcomer)
	}},
	// Here they have ten times the members where there are ten times the pods: 2,250
	// against 225. That is no growth of the cost of a change, but a larger change.
	{"LocalPodWithLargerSets", 2 * time.Millisecond, func(c cluster, n int) []event.Event {
		return comeAndGo(n, func() (pod, endpoint event.Event) { return c.pod(0, 0), c.endpoint(0) })
	}},
	{"LocalPodAddedOrRemoved", 2 * time.Millisecond, func(c cluster, n int) []event.Event {
		return comeAndGo(n, c.twin)
	}},
	{"PolicyEdited", 5 * time.Millisecond, func(c cluster, n int) []event.Event {
		return []event.Event{c.policy(0, 1+n%2)} // selects local pods
	}},
	{"NamespaceRelabelled", 20 * time.Millisecond, func(c cluster, n int) []event.Event {
		return []event.Event{c.namespace(0, (n+1)%2)} // 1,000 pods leave the set of group-0, or enter it
	}},
}

func comeAndGo(n int, make func() (pod, endpoint event.Event)) []event.Event {
	pod, endpoint := make()
	if n%2 == 0 {
		return []event.Event{gone(endpoint), gone(pod)}
	}
	return []event.Event{endpoint, pod}
}

// meter sums the time and the processor time that passes between start and stop.
type meter struct {
	took, cpu    time.Duration
	began        time.Time
	beganWithCPU time.Duration
}

func (m *meter) start() { m.beganWithCPU, m.began = processor(), time.Now() }

func (m *meter) stop() {
	m.took += time.Since(m.began)
	m.cpu += processor() - m.beganWithCPU
}

// processor returns the processor time that this process has used.
func processor() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic("bug: getrusage: " + err.Error())
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkChange: one change, in a small and in a large cluster by turns, so
// that both have the same weather.
func BenchmarkChange(b *testing.B) {
	small, large := cluster{sizes[0]}, cluster{sizes[1]}
	clusters := []cluster{small, large}
	engines := []*calc.Engine{small.load(), large.load()}
	for _, ch := range changes {
		b.Run(ch.name, func(b *testing.B) {
			const batch = 100
			var meters [2]meter
			done := 0
			for b.Loop() {
				for i, e := range engines {
					var steps [batch][]event.Event
					for k := range steps {
						steps[k] = ch.step(clusters[i], done+k)
					}
					meters[i].start()
					for _, evs := range steps {
						for _, ev := range evs {
							e.Put(ev)
						}
						e.Flush()
					}
					meters[i].stop()
				}
				done += batch
			}
			n := float64(done)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(meters[1].took.Microseconds())/n, "us")
			b.ReportMetric(float64(meters[1].cpu.Microseconds())/n, "cpu-us")
			b.ReportMetric(float64(ch.limit.Microseconds()), "limit-us")
			b.ReportMetric(float64(meters[1].took)/float64(meters[0].took), "times-of-25k")
			b.ReportMetric(growthLimit, "limit-times")
		})
	}
	runtime.KeepAlive(engines)
}

// BenchmarkLoad: everything at once, as after a restart.
func BenchmarkLoad(b *testing.B) {
	for _, pods := range sizes {
		b.Run(fmt.Sprint("pods=", pods), func(b *testing.B) {
			var m meter
			var heap float64
			for b.Loop() {
				before := heapMB()
				events := cluster{pods}.events()
				m.start()
				e := learn(events)
				m.stop()
				events = nil
				heap = heapMB() - before
				runtime.KeepAlive(e)
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(m.took.Seconds()/float64(b.N), "s")
			b.ReportMetric(m.cpu.Seconds()/float64(b.N), "cpu-s")
			b.ReportMetric(loadLimit.Seconds(), "limit-s")
			b.ReportMetric(heap, "heap-MB")
			b.ReportMetric(heapLimit, "limit-MB")
		})
	}
}

func heapMB() float64 {
	runtime.GC()
	runtime.GC() // the second frees what weakly held labels kept in the first
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / 1e6
}
