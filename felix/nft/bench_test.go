package nft_test

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/kernel/route"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// stopwatch times operations by the clock, and by what they cost: on a busy
// machine only the second says much.
type stopwatch struct {
	b    *testing.B
	took []time.Duration
	cost time.Duration // CPU time of this process, the kernel's work for it included
}

func (s *stopwatch) time(one func() error) {
	s.b.Helper()
	begin, spent := time.Now(), cpu(s.b)
	if err := one(); err != nil {
		s.b.Fatal(err)
	}
	s.took = append(s.took, time.Since(begin))
	s.cost += cpu(s.b) - spent
}

func cpu(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// report tells the median, the 99th percentile, and the CPU time on average.
func (s *stopwatch) report() {
	b, took := s.b, s.took
	slices.Sort(took)
	b.ReportMetric(float64(s.cost.Microseconds())/1000/float64(len(took)), "ms-cpu")
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-p50")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "ms-p99")
}

// BenchmarkChange is one change on a node with 200 pods: from what the engine says
// until the kernel enforces it.
func BenchmarkChange(b *testing.B) {
	for _, policies := range []int{10, 1_000, 10_000} {
		d := crowd(200, policies, nil)
		changes := map[string]func(i int) desired.Delta{
			"member": func(i int) desired.Delta {
				m := map[ir.Member]struct{}{{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)}), 32)}: {}}
				return desired.Delta{Sets: map[ir.SetID]*desired.SetChange{"set1": {Kind: ir.Addrs, Add: m}}}
			},
			"rule": func(i int) desired.Delta {
				id := crowdProgram(i % policies)
				p := *d.Programs[id]
				p.Rules = append(slices.Clone(p.Rules), ir.Rule{Action: policy.Allow, SrcNets: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Origin: i})
				p.Rules[0].Action = policy.Action(i % 2)
				return desired.Delta{Programs: map[ir.ProgramID]*ir.Program{id: &p}}
			},
			"policy": func(i int) desired.Delta { // a new one, on one pod
				id := crowdProgram(1_000_000 + i)
				iface := slices.Sorted(maps.Keys(d.Endpoints))[i%200]
				e := *d.Endpoints[iface]
				e.Ingress.Tiers = slices.Clone(e.Ingress.Tiers)
				e.Ingress.Tiers[0].Programs = append(slices.Clone(e.Ingress.Tiers[0].Programs), id)
				return desired.Delta{
					Endpoints: map[string]*desired.Endpoint{iface: &e},
					Programs:  map[ir.ProgramID]*ir.Program{id: {ID: id, Rules: []ir.Rule{{Action: policy.Deny}}}},
				}
			},
		}
		for _, name := range []string{"member", "rule", "policy"} {
			b.Run(fmt.Sprintf("%s/%d", name, policies), func(b *testing.B) {
				w := newWall(b, kerneltest.New(b))
				if err := w.apply(d); err != nil {
					b.Fatal(err)
				}
				watch := stopwatch{b: b}
				before := w.Stats()
				for i := 0; b.Loop(); i++ {
					change := changes[name](i)
					watch.time(func() error { return w.apply(change) })
				}
				watch.report()
				b.ReportMetric(float64(w.Stats().Messages-before.Messages)/float64(len(watch.took)), "messages/op")
			})
		}
	}
}

// load is a node with 200 pods, 10,000 policies of 5 rules each, 100,000 members of
// sets, and as many routes.
func load() desired.Delta {
	d := crowd(200, 10_000, nil)
	for _, p := range d.Programs {
		for i := range 4 {
			r := p.Rules[0]
			r.DstPorts = []ir.PortRange{{First: uint16(20_000 + i), Last: uint16(20_000 + i)}}
			r.Origin = i + 1
			p.Rules = append(p.Rules, r)
		}
	}
	for s := range 100 {
		change := d.Sets[ir.SetID(fmt.Sprint("set", s))]
		for m := range 750 {
			change.Add[ir.Member{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 3, byte(m >> 8), byte(m)}), 32)}] = struct{}{}
		}
	}
	d.Routes = map[netip.Prefix]*desired.Route{}
	for i := range 100_000 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(64 + i>>16), byte(i >> 8), byte(i)}), 32)
		d.Routes[p] = &desired.Route{Prefix: p, Kind: desired.Via, NextHops: []netip.Addr{netip.MustParseAddr("192.0.2.2")}}
	}
	return d
}

// BenchmarkLoad brings 50,000 rules and 100,000 members into an empty table, and then,
// as a node does, 100,000 routes into the kernel. What the routes alone take is told
// beside it.
func BenchmarkLoad(b *testing.B) {
	watch, routes := stopwatch{b: b}, stopwatch{b: b}
	for b.Loop() {
		d, host := load(), kerneltest.New(b)
		kerneltest.Pod(host, "eth0")
		host.Run("ip", "addr", "add", "192.0.2.1/24", "dev", "eth0")
		w, r := newWall(b, host), newRouter(b, host)
		watch.time(func() error {
			if err := w.apply(d); err != nil {
				return err
			}
			routes.time(func() error {
				r.Want(d)
				return r.Apply(b.Context())
			})
			return nil
		})
	}
	watch.report()
	b.ReportMetric(float64(routes.cost.Microseconds())/1000/float64(len(routes.took)), "ms-cpu-routes")
}

func newRouter(b *testing.B, host *kerneltest.Namespace) *route.Reconciler {
	b.Helper()
	var r *route.Reconciler
	host.Do(func() {
		var err error
		if r, err = route.New(); err != nil {
			b.Fatal(err)
		}
	})
	b.Cleanup(func() {
		if err := r.Close(); err != nil {
			b.Error(err)
		}
	})
	return r
}

// BenchmarkMembers changes 10,000 members of the sets of that table at once.
func BenchmarkMembers(b *testing.B) {
	w := newWall(b, kerneltest.New(b))
	if err := w.apply(load()); err != nil {
		b.Fatal(err)
	}
	watch := stopwatch{b: b}
	for i := 0; b.Loop(); i++ {
		d := desired.Delta{Sets: map[ir.SetID]*desired.SetChange{}}
		for s := range 100 {
			change := &desired.SetChange{Kind: ir.Addrs, Add: map[ir.Member]struct{}{}, Del: map[ir.Member]struct{}{}}
			for m := range 100 {
				member := ir.Member{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 8, byte(m >> 8), byte(m)}), 32)}
				if i%2 == 0 {
					change.Add[member] = struct{}{}
				} else {
					change.Del[member] = struct{}{}
				}
			}
			d.Sets[ir.SetID(fmt.Sprint("set", s))] = change
		}
		watch.time(func() error { return w.apply(d) })
	}
	watch.report()
}

// BenchmarkRestart is an agent that starts and finds that table as it should be.
func BenchmarkRestart(b *testing.B) {
	host := kerneltest.New(b)
	d := load()
	if err := newWall(b, host).apply(d); err != nil {
		b.Fatal(err)
	}
	watch := stopwatch{b: b}
	for b.Loop() {
		w := newWall(b, host)
		watch.time(func() error { return w.apply(d) })
		if n := w.Stats().Messages; n > 0 {
			b.Fatalf("%d messages were written", n)
		}
	}
	watch.report()
}
