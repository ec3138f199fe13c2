package tunnel_test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/koratnet/korat/felix/desired"
)

// byHand makes the same VXLAN tunnel with ip, on another port, and returns the
// addresses inside.
func byHand(t testing.TB, a, b *site) (insideA, insideB string) {
	t.Helper()
	insideA, insideB = "10.9.0.1", "10.9.0.2"
	for _, s := range []struct {
		*site
		to              *site
		inside, further string
		mac, macOther   string
	}{{a, b, insideA, insideB, "02:00:00:00:00:01", "02:00:00:00:00:02"}, {b, a, insideB, insideA, "02:00:00:00:00:02", "02:00:00:00:00:01"}} {
		for _, command := range []string{
			"ip link add hand address " + s.mac + " type vxlan id 7 dstport 4790 local " + s.underlay.String() + " nolearning",
			"ip link set hand mtu 1450 up",
			"ip addr add " + s.inside + "/32 dev hand",
			"bridge fdb add " + s.macOther + " dev hand dst " + s.to.underlay.String(),
			"ip route add " + s.further + "/32 via " + s.to.underlay.String() + " dev hand onlink",
			"ip neigh add " + s.to.underlay.String() + " lladdr " + s.macOther + " dev hand nud permanent",
		} {
			f := strings.Fields(command)
			s.Run(f[0], f[1:]...)
		}
	}
	return insideA, insideB
}

// connect opens a TCP connection from a to the address of b.
func connect(t testing.TB, a, b *site, to string) (client, server net.Conn) {
	t.Helper()
	var l net.Listener
	var err error
	b.Do(func() { l, err = net.Listen("tcp", net.JoinHostPort(to, "0")) })
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _ := l.Accept()
		accepted <- c
	}()
	a.Do(func() { client, err = net.DialTimeout("tcp", l.Addr().String(), 30*time.Second) })
	if err != nil {
		t.Fatal(err)
	}
	server = <-accepted
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

// transfer returns how long a number of bytes take.
func transfer(t testing.TB, client, server net.Conn, bytes int64) time.Duration {
	t.Helper()
	done := make(chan error, 1)
	begin := time.Now()
	go func() {
		_, err := io.CopyN(io.Discard, server, bytes)
		done <- err
	}()
	chunk := make([]byte, 128<<10)
	for sent := int64(0); sent < bytes; sent += int64(len(chunk)) {
		if _, err := client.Write(chunk); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return time.Since(begin)
}

// roundTrips returns how long so many answers take.
func roundTrips(t testing.TB, client, server net.Conn, count int) time.Duration {
	t.Helper()
	go func() { _, _ = io.CopyN(server, server, int64(count)) }()
	one := make([]byte, 1)
	begin := time.Now()
	for range count {
		if _, err := client.Write(one); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(client, one); err != nil {
			t.Fatal(err)
		}
	}
	return time.Since(begin)
}

// BenchmarkBesideByHand takes turns between our tunnel, one made by hand, and the
// plain underlay, and prints the ratios of the best of each.
func BenchmarkBesideByHand(b *testing.B) {
	x, y := joined(b, desired.VXLAN4)
	_, insideY := byHand(b, x, y)
	best := map[string]map[string]time.Duration{"throughput": {}, "roundtrips": {}}
	type pair struct{ client, server net.Conn }
	ways := map[string]pair{}
	for name, to := range map[string]string{"ours": y.inside.String(), "byhand": insideY, "plain": y.underlay.String()} {
		c, s := connect(b, x, y, to)
		ways[name] = pair{c, s}
	}
	note := func(what, way string, took time.Duration) {
		if d, known := best[what][way]; !known || took < d {
			best[what][way] = took
		}
	}
	for b.Loop() {
		for way, p := range ways {
			note("throughput", way, transfer(b, p.client, p.server, 64<<20))
			note("roundtrips", way, roundTrips(b, p.client, p.server, 2000))
		}
	}
	for what, of := range best {
		b.ReportMetric(of["byhand"].Seconds()/of["ours"].Seconds(), what+"/byhand")
		b.ReportMetric(of["plain"].Seconds()/of["ours"].Seconds(), what+"/plain")
	}
	b.Logf("best: %s", fmt.Sprint(best))
}
