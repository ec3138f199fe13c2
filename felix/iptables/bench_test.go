package iptables

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// bigNode is a node with so many pods and policies, each policy used by one pod.
func bigNode(pods, policies int) desired.Delta {
	d := desired.Delta{Complete: true, Endpoints: map[string]*desired.Endpoint{}, Programs: map[ir.ProgramID]*ir.Program{}}
	for i := range pods {
		e := &desired.Endpoint{Interface: desired.HostInterface("ns", fmt.Sprint("pod", i)), Pod: fmt.Sprint("ns/pod", i)}
		e.Addrs = []netip.Addr{netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})}
		t := ir.Tier{Name: policy.DefaultTier, End: policy.Deny}
		for p := i; p < policies; p += pods {
			id := knp(fmt.Sprint("p", p), policy.Ingress)
			t.Programs = append(t.Programs, id)
			d.Programs[id] = changing(id, 80)
		}
		e.Ingress, e.Egress = ir.Chain{Tiers: []ir.Tier{t}}, ir.Chain{Default: policy.Allow}
		d.Endpoints[e.Interface] = e
	}
	return d
}

func changing(id ir.ProgramID, port uint16) *ir.Program {
	return &ir.Program{ID: id, Rules: []ir.Rule{
		{Action: policy.Allow, Protocol: policy.TCP, SrcNets: nets("10.0.0.0/8"), DstPorts: []ir.PortRange{{First: port, Last: port}}},
		{Action: policy.Allow, Protocol: policy.UDP, SrcNets: nets("10.0.0.0/8"), NotSrcNets: nets("10.9.0.0/16")},
	}}
}

// BenchmarkPolicyChange is one policy's change on a node with 200 pods, from Want
// to the kernel. Beside its median stands that of the bare program, an equal
// iptables-restore into an equal table, and the processor time that this takes, the
// kernel's for it included: on a busy machine only that says much.
func BenchmarkPolicyChange(b *testing.B) {
	for _, flavour := range []Flavour{NFT, Legacy} {
		for _, policies := range []int{10, 1000, 10000} {
			b.Run(fmt.Sprintf("%s/policies=%d", flavour, policies), func(b *testing.B) {
				host := kerneltest.New(b)
				f := New(Config{Family: ir.IPv4, Flavour: flavour, Log: slog.New(slog.DiscardHandler)})
				f.Want(bigNode(200, policies))
				id := knp("p7", policy.Ingress)
				host.Do(func() {
					if err := f.Apply(b.Context()); err != nil {
						b.Fatal(err)
					}
					var ours, bare, used []time.Duration
					for port := uint16(0); b.Loop(); {
						port++
						start := time.Now()
						f.Want(desired.Delta{Programs: map[ir.ProgramID]*ir.Program{id: changing(id, port)}})
						if err := f.Apply(b.Context()); err != nil {
							b.Fatal(err)
						}
						ours = append(ours, time.Since(start))
						start, before := time.Now(), cpuOfPrograms(b)
						if err := f.tool.restore(b.Context(), scriptFor(f.filter.want[programChain(id)])); err != nil {
							b.Fatal(err)
						}
						bare = append(bare, time.Since(start))
						used = append(used, cpuOfPrograms(b)-before)
					}
					for unit, took := range map[string][]time.Duration{"ms-p50": ours, "ms-p50-bare": bare, "ms-cpu-bare": used} {
						slices.Sort(took)
						b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, unit)
					}
				})
			})
		}
	}
}

// cpuOfPrograms is the processor time of all programs that have been started.
func cpuOfPrograms(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_CHILDREN, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func scriptFor(c chain) []byte {
	s := newScript("filter")
	s.declare(c.name)
	s.fill(c)
	s.line("", "COMMIT")
	return s.Bytes()
}

// BenchmarkStartWithFullKernel is an agent's start when everything is there already.
func BenchmarkStartWithFullKernel(b *testing.B) {
	for _, flavour := range []Flavour{NFT, Legacy} {
		b.Run(string(flavour), func(b *testing.B) {
			host := kerneltest.New(b)
			d := bigNode(200, 10000)
			host.Do(func() {
				start := func() {
					f := New(Config{Family: ir.IPv4, Flavour: flavour, Log: slog.New(slog.DiscardHandler)})
					f.Want(d)
					if err := f.Apply(b.Context()); err != nil {
						b.Fatal(err)
					}
				}
				start() // from nothing
				for b.Loop() {
					start()
				}
			})
		})
	}
}
