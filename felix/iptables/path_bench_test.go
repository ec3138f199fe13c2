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
	"github.com/koratnet/korat/policy/ir"
)

// path is a node with two pods between which packets are timed, one way, on one
// CPU and without a wake-up: the sender's thread does all the work.
type path struct {
	b          *testing.B
	host       *kerneltest.Namespace
	from, to   *kerneltest.Namespace
	sender     int
	receiver   int
	address    [4]byte
	lastSource int // port
}

// The ports that connections come from.
const firstSource, endOfSources = 20000, 60000

func newPath(b *testing.B) *path {
	b.Helper()
	p := &path{b: b, host: kerneltest.New(b), address: [4]byte{10, 1, 0, 1}, lastSource: firstSource}
	p.host.Run("sysctl", "-qw", "net.ipv4.ip_forward=1")
	pod := func(n int) *kerneltest.Namespace {
		iface := desired.HostInterface("ns", fmt.Sprint("pod", n))
		ns := kerneltest.Pod(p.host, iface)
		addr := fmt.Sprintf("10.1.0.%d", n)
		ns.Run("ip", "addr", "add", addr+"/32", "dev", "eth0")
		ns.Run("ip", "route", "add", "169.254.1.1", "dev", "eth0", "scope", "link")
		ns.Run("ip", "route", "add", "default", "via", "169.254.1.1", "dev", "eth0")
		ns.Run("ip", "neigh", "replace", "169.254.1.1", "lladdr", p.host.Link(iface).Attrs().HardwareAddr.String(), "dev", "eth0", "nud", "permanent")
		p.host.Run("ip", "route", "add", addr, "dev", iface)
		p.host.Run("ip", "neigh", "replace", addr, "lladdr", ns.Link("eth0").Attrs().HardwareAddr.String(), "dev", iface, "nud", "permanent")
		return ns
	}
	p.from, p.to = pod(0), pod(1)
	p.to.Do(func() { p.receiver = p.socket(6001) })
	p.from.Do(func() { p.sender = p.socket(6000) })
	b.Cleanup(func() {
		unix.Close(p.receiver)
		unix.Close(p.sender)
	})
	if err := unix.SetsockoptTimeval(p.receiver, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 2}); err != nil {
		b.Fatal(err)
	}
	return p
}

// socket opens a UDP socket in the namespace of the thread.
func (p *path) socket(port int) int {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Port: port})
	}
	if err != nil {
		p.b.Fatal(err)
	}
	return fd
}

// cross times a packet.
func (p *path) cross(from int) time.Duration {
	buf := make([]byte, 64)
	start := time.Now()
	err := unix.Sendto(from, buf, 0, &unix.SockaddrInet4{Addr: p.address, Port: 6001})
	if err == nil {
		_, _, err = unix.Recvfrom(p.receiver, buf, 0)
	}
	took := time.Since(start)
	if err != nil {
		p.b.Fatalf("a packet was lost: %v", err)
	}
	return took
}

// established returns the time of packets of one connection, fresh that of the first
// packets of as many connections: the tenth percentile, which other work on the
// machine disturbs little.
func (p *path) established() time.Duration {
	p.cross(p.sender)
	if err := unix.Sendto(p.receiver, []byte("answer"), 0, &unix.SockaddrInet4{Addr: [4]byte{10, 1, 0, 0}, Port: 6000}); err != nil {
		p.b.Fatal(err)
	}
	return low(func(int) time.Duration { return p.cross(p.sender) })
}

func (p *path) fresh() time.Duration {
	var sources []int
	if p.lastSource+samples > endOfSources { // all over again, as if nobody had called
		p.host.Run("conntrack", "-F")
		p.lastSource = firstSource
	}
	p.from.Do(func() {
		for range samples {
			p.lastSource++
			sources = append(sources, p.socket(p.lastSource))
		}
	})
	defer func() {
		for _, fd := range sources {
			unix.Close(fd)
		}
	}()
	return low(func(i int) time.Duration { return p.cross(sources[i]) })
}

const samples = 700

func low(one func(i int) time.Duration) time.Duration {
	var all []time.Duration
	for i := range samples {
		all = append(all, one(i))
	}
	slices.Sort(all)
	return all[len(all)/10]
}

// BenchmarkPath times packets between two of 200 pods, beside plain routing and
// beside connection tracking alone, on the same machine in the same minute; the
// ratios are what holds elsewhere. The least of several rounds counts.
func BenchmarkPath(b *testing.B) {
	const rounds = 7
	for _, flavour := range []Flavour{NFT, Legacy} {
		for _, policies := range []int{10, 1000, 10000} {
			b.Run(fmt.Sprintf("%s/policies=%d", flavour, policies), func(b *testing.B) {
				oneCPU(b)
				plain, tracked, policed := newPath(b), newPath(b), newPath(b)
				tracked.host.Run("nft", "table ip t { chain c { type filter hook forward priority 0; ct state established,related accept; }; }")
				d := bigNode(200, policies)
				for _, e := range d.Endpoints {
					e.Addrs = []netip.Addr{e.Addrs[0]}
				}
				f := New(Config{Family: ir.IPv4, Flavour: flavour, Log: slog.New(slog.DiscardHandler)})
				f.Want(d)
				policed.host.Do(func() {
					if err := f.Apply(b.Context()); err != nil {
						b.Fatal(err)
					}
				})
				least := map[string]time.Duration{}
				note := func(name string, took time.Duration) {
					if old, ok := least[name]; !ok || took < old {
						least[name] = took
					}
				}
				for b.Loop() {
					for range rounds {
						note("plain same", plain.established())
						note("tracked same", tracked.established())
						note("policed same", policed.established())
						note("plain new", plain.fresh())
						note("tracked new", tracked.fresh())
						note("policed new", policed.fresh())
					}
				}
				b.ReportMetric(float64(least["policed same"])/float64(least["plain same"]), "x-established")
				b.ReportMetric(float64(least["policed new"])/float64(least["plain new"]), "x-new")
				b.ReportMetric(float64(least["tracked same"])/float64(least["plain same"]), "x-conntrack-established")
				b.ReportMetric(float64(least["tracked new"])/float64(least["plain new"]), "x-conntrack-new")
				b.ReportMetric(float64(least["plain same"].Nanoseconds()), "ns-plain")
			})
		}
	}
}
