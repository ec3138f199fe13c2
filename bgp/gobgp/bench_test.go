package gobgp_test

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
)

var reflectorClients = flag.Int("reflectorclients", 300, "how many clients the reflector of a benchmark has")

var profileTo = flag.String("speakerprofile", "", "profile the speaker of a benchmark to `FILE`.cpu and FILE.heap")

var fanRouter = netip.MustParseAddr("10.10.255.1")

// measured is a router that benchmarks compare.
type measured struct {
	name  string
	start func(t testing.TB, ns *kerneltest.Namespace, f fan, reflects bool) running
}

// running is a router that runs.
type running struct {
	pid     int
	profile func() // nil: there is none
}

func measuredRouters() []measured {
	return []measured{
		{"korat", func(t testing.TB, ns *kerneltest.Namespace, f fan, reflects bool) running {
			s := startSpeaker(t, ns, false)
			s.ask(request{Kernel: true})
			s.ask(request{Configure: fanConfig(f, reflects)})
			out := running{pid: s.cmd.Process.Pid}
			if *profileTo != "" {
				s.ask(request{Profile: *profileTo})
				out.profile = func() { s.ask(request{Profile: *profileTo}) }
			}
			return out
		}},
		{"bird", func(t testing.TB, ns *kerneltest.Namespace, f fan, reflects bool) running {
			return running{pid: bird(t, ns, fanBIRD(f, reflects)).run.Process.Pid}
		}},
		{"frr", func(t testing.TB, ns *kerneltest.Namespace, f fan, reflects bool) running {
			return running{pid: frr(t, ns, fanFRR(f, reflects)).run.Process.Pid}
		}},
	}
}

func fanConfig(f fan, reflects bool) *bgp.Config {
	c := &bgp.Config{ASN: fanRouterAS, RouterID: fanRouter, ListenPort: 179, RestartTime: time.Minute}
	if reflects {
		c.ClusterID = fanRouter
	}
	for i := range f.Peers {
		c.Peers = append(c.Peers, bgp.Peer{
			Name: "nodenetwork/" + strconv.Itoa(i), Addr: fanAddr(i), Port: 179, ASN: uint32(f.ASN), LocalAddr: fanRouter,
			Advertise: bgp.Blocks, Passive: true, ReflectorClient: reflects, Hold: 240 * time.Second, Keepalive: 80 * time.Second,
		})
	}
	return c
}

func fanBIRD(f fan, reflects bool) string {
	var s strings.Builder
	s.WriteString("router id 10.10.255.1;\nprotocol device {}\nprotocol direct { ipv4; }\n")
	s.WriteString("protocol kernel { learn; ipv4 { import all; export where source = RTS_BGP; }; }\n")
	client := ""
	if reflects {
		client = "rr client; rr cluster id 10.10.255.1;"
	}
	for i := range f.Peers {
		fmt.Fprintf(&s, "protocol bgp n%d { local 10.10.255.1 as %d; neighbor %s as %d; passive on; %s ipv4 { gateway recursive; import all; export where source = RTS_BGP; }; }\n",
			i, fanRouterAS, fanAddr(i), f.ASN, client)
	}
	return s.String()
}

func fanFRR(f fan, reflects bool) string {
	var s strings.Builder
	fmt.Fprintf(&s, "router bgp %d\n bgp router-id 10.10.255.1\n no bgp ebgp-requires-policy\n neighbor fan peer-group\n neighbor fan remote-as %d\n neighbor fan passive\n neighbor fan disable-connected-check\n bgp listen limit 5000\n bgp listen range %s peer-group fan\n", fanRouterAS, f.ASN, fanNet)
	if reflects {
		s.WriteString(" address-family ipv4 unicast\n  neighbor fan route-reflector-client\n exit-address-family\n")
	}
	return s.String()
}

// resident returns the memory of a process now and at most, in MB.
func resident(t testing.TB, pid int) (now, most float64) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var kb float64
		if _, err := fmt.Sscanf(line, "VmRSS: %f", &kb); err == nil {
			now = kb / 1024
		}
		if _, err := fmt.Sscanf(line, "VmHWM: %f", &kb); err == nil {
			most = kb / 1024
		}
	}
	return now, most
}

// processor returns the processor time of a process, in seconds.
func processor(t testing.TB, pid int) float64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	const user, system, ticks = 11, 12, 100 // after the name; ticks a second
	var sum float64
	for _, i := range []int{user, system} {
		n, err := strconv.ParseFloat(f[i], 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += n / ticks
	}
	return sum
}

// benchmarkFan measures each router with a fan of its own, in turns, until all that
// the fan says is in the kernel.
func benchmarkFan(b *testing.B, f fan, reflects bool) {
	for _, m := range measuredRouters() {
		b.Run(m.name, func(b *testing.B) {
			var install, hear time.Duration
			var now, most, cpu float64
			for range b.N {
				router, neighbours := routerAndFan(b)
				r := m.start(b, router, f, reflects)
				start := time.Now()
				p := startFan(b, neighbours, f)
				all := f.Peers * f.Prefixes
				for tick := time.Tick(20 * time.Millisecond); kernelHas(b, router) < all; <-tick {
					if time.Since(start) > 3*time.Minute {
						b.Fatalf("%d of %d in the kernel", kernelHas(b, router), all)
					}
				}
				install += time.Since(start)
				p.next()
				hear += p.next().Heard
				n, x := resident(b, r.pid)
				if r.profile != nil {
					r.profile()
				}
				now, most = now+n, max(most, x)
				cpu += processor(b, r.pid)
			}
			b.ReportMetric(install.Seconds()/float64(b.N), "s/in-kernel")
			if f.Expect > 0 {
				b.ReportMetric(hear.Seconds()/float64(b.N), "s/told")
			}
			b.ReportMetric(cpu/float64(b.N), "cpu-s")
			b.ReportMetric(now/float64(b.N), "MB")
			b.ReportMetric(most, "MB-most")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkLearn: one neighbour with 100,000 prefixes.
func BenchmarkLearn(b *testing.B) {
	benchmarkFan(b, fan{Router: fanRouter, ASN: 65001, Peers: 1, Prefixes: 100_000}, false)
}

// BenchmarkMesh: a node among 1,000 others with 4 blocks each.
func BenchmarkMesh(b *testing.B) {
	benchmarkFan(b, fan{Router: fanRouter, ASN: fanRouterAS, Peers: 1000, Prefixes: 4}, false)
}

// BenchmarkReflector: clients (300) with 10 prefixes each.
func BenchmarkReflector(b *testing.B) {
	clients, prefixes := *reflectorClients, 10
	benchmarkFan(b, fan{
		Router: fanRouter, ASN: fanRouterAS, Peers: clients, Prefixes: prefixes, Expect: (clients - 1) * prefixes,
	}, true)
}
