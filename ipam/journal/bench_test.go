package journal

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/koratnet/korat/ipam"
)

// BenchmarkDurable compares records that are on disk when the call returns, of
// one writer and of 64 (the goal is 5,000 a second), with a loop that appends and
// syncs a line of the same length.
func BenchmarkDurable(b *testing.B) {
	b.Run("plain fsync loop", func(b *testing.B) {
		f, err := os.Create(filepath.Join(b.TempDir(), "plain"))
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		line := make([]byte, 160)
		for range b.N {
			if _, err := f.Write(line); err != nil {
				b.Fatal(err)
			}
			if err := f.Sync(); err != nil {
				b.Fatal(err)
			}
		}
		report(b)
	})
	for _, writers := range []int{1, 64} {
		b.Run(fmt.Sprintf("%d writers", writers), func(b *testing.B) {
			j, err := Open(b.TempDir(), "n")
			if err != nil {
				b.Fatal(err)
			}
			defer j.Close()
			var left atomic.Int64
			left.Store(int64(b.N))
			var g errgroup.Group
			b.ResetTimer()
			for w := range writers {
				h := ipam.Handle{Namespace: "shop", Pod: fmt.Sprint("web-", w), Sandbox: "c"}
				g.Go(func() (err error) {
					for on := true; err == nil && left.Add(-1) >= 0; on = !on {
						if on {
							_, err = j.Attach(Attachment{Handle: h, HostInterface: "kor0123456789a", Addrs: []netip.Addr{addr}})
						} else {
							err = j.Detach(h, Rest{})
						}
					}
					return err
				})
			}
			if err := g.Wait(); err != nil {
				b.Fatal(err)
			}
			report(b)
		})
	}
}

func report(b *testing.B) {
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "durable/s")
}
