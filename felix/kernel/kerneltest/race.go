package kerneltest

import (
	"fmt"
	"io"
	"net"
	"testing"
	"time"
)

// Race is a comparison of ways from one namespace to another that take turns.
type Race struct {
	From, To *Namespace
	Ways     map[string]string // names to addresses of To; "ours" is one of them
	Bytes    int64             // of a turn
	Trips    int               // of a turn, there and back
}

// Run reports the throughput and the round trips of "ours" as ratios to those of each
// other way, of the best turn of each.
func (r Race) Run(b *testing.B) {
	type pair struct{ client, server net.Conn }
	ways := map[string]pair{}
	for way, to := range r.Ways {
		client, server := connect(b, r.From, r.To, to)
		ways[way] = pair{client, server}
	}
	best := map[string]map[string]time.Duration{"throughput": {}, "roundtrips": {}}
	note := func(what, way string, took time.Duration) {
		if d, known := best[what][way]; !known || took < d {
			best[what][way] = took
		}
	}
	for b.Loop() {
		for way, p := range ways {
			note("throughput", way, transfer(b, p.client, p.server, r.Bytes))
			note("roundtrips", way, roundTrips(b, p.client, p.server, r.Trips))
		}
	}
	for what, of := range best {
		for way, took := range of {
			if way != "ours" {
				b.ReportMetric(took.Seconds()/of["ours"].Seconds(), what+"/"+way)
			}
		}
	}
	b.Logf("best: %s", fmt.Sprint(best))
}

// connect opens a TCP connection from a to the address of b.
func connect(t testing.TB, a, b *Namespace, to string) (client, server net.Conn) {
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
	a.Do(func() { client, err = net.DialTimeout("tcp", l.Addr().String(), time.Minute) })
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
