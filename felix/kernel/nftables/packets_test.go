package nftables_test

import (
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/kernel/nftables"
)

// stream sends packets over the loopback interface of n, one after another, until
// the test ends, and counts those that were sent, were dropped on their way out,
// and came.
type stream struct {
	sent, dropped, came atomic.Int64
}

func newStream(t *testing.T, n *kerneltest.Namespace) *stream {
	t.Helper()
	var in, out net.Conn
	n.Do(func() {
		l, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		in = l
		if out, err = net.DialUDP("udp4", nil, l.LocalAddr().(*net.UDPAddr)); err != nil {
			t.Fatal(err)
		}
	})
	s := &stream{}
	done := make(chan struct{}, 2)
	go func() {
		defer func() { done <- struct{}{} }()
		for b := make([]byte, 16); ; {
			if _, err := in.Read(b); err != nil {
				return
			}
			s.came.Add(1)
		}
	}()
	go func() {
		defer func() { done <- struct{}{} }()
		tick := time.NewTicker(50 * time.Microsecond) // leaves a processor to the others
		defer tick.Stop()
		for range tick.C {
			_, err := out.Write([]byte("korat"))
			switch {
			case errors.Is(err, net.ErrClosed):
				return
			case errors.Is(err, unix.EPERM):
				s.dropped.Add(1)
			}
			s.sent.Add(1)
		}
	}()
	t.Cleanup(func() {
		in.Close()
		out.Close()
		<-done
		<-done
	})
	return s
}

// await waits until so many more packets were sent.
func (s *stream) await(t *testing.T, more int64) {
	t.Helper()
	until := s.sent.Load() + more
	kerneltest.Eventually(t, "packets are sent", func() bool { return s.sent.Load() >= until })
}

// TestNoPacketMeetsHalfAChange: what is dropped before and after every change is
// dropped in between, and what is accepted likewise.
func TestNoPacketMeetsHalfAChange(t *testing.T) {
	output := nftables.Hook{Type: nftables.Filter, Number: nftables.Output}
	for what, c := range map[string]struct{ member, other expr.VerdictKind }{
		"members are dropped":       {expr.VerdictDrop, expr.VerdictAccept},
		"members only are accepted": {expr.VerdictAccept, expr.VerdictDrop},
	} {
		t.Run(what, func(t *testing.T) {
			n := kerneltest.New(t)
			table := open(t, n)
			// In every state, packets come to chain "judge" by the map or behind it, and
			// their source is a member of every set.
			states := []func(){
				func() { table.SetMembers("nets", nets("127.0.0.0/8", "10.0.0.0/8")...) },
				func() { table.WantVerdict("to", nftables.Interface("lo"), nftables.Goto("judge")) },
				func() { table.SetMembers("nets", nets("127.0.0.1/32", "127.0.0.2/32")...) },
				func() { table.SetMembers("nets", nets("0.0.0.0/0")...) },
				func() { table.WantChain(chain("judge", from("nets", c.member, ""), always(c.other, ""))) },
				func() { table.WantVerdict("to", nftables.Interface("lo"), nftables.Jump("detour")) },
				func() { table.SetMembers("nets", nets("127.0.0.0/9", "127.128.0.0/9", "128.0.0.0/1")...) },
				func() { table.WantChain(chain("judge", from("hosts", c.member, ""), always(c.other, ""))) },
				func() { table.UnwantVerdict("to", nftables.Interface("lo")) },
				func() { // the chain and its set change together
					table.SetMembers("hosts", addrs("127.0.0.9")...)
					table.WantChain(chain("judge", from("nets", c.member, ""), always(c.other, "")))
				},
				func() {
					table.SetMembers("hosts", addrs("127.0.0.1", "127.0.0.9")...)
					table.WantChain(chain("judge", from("hosts", c.member, ""), always(c.other, "")))
				},
				func() { table.WantSet(nftables.Set{Name: "turns", Key: v4}) },
				func() { table.WantSet(nftables.Set{Name: "turns", Key: v6}) }, // the table is made anew
			}
			table.WantSet(nftables.Set{Name: "nets", Key: v4, Interval: true})
			table.WantSet(nftables.Set{Name: "hosts", Key: v4})
			table.SetMembers("hosts", addrs("127.0.0.1")...)
			table.SetMembers("nets", nets("127.0.0.1/32")...)
			table.WantMap(nftables.Map{Name: "to", Key: name})
			table.WantChain(chain("judge", from("hosts", c.member, ""), always(c.other, "")))
			table.WantChain(chain("detour", always(expr.VerdictJump, "judge")))
			table.WantChain(nftables.Chain{Name: "output", Base: &output, Rules: []nftables.Rule{dispatch("to"), always(expr.VerdictGoto, "judge")}})
			mustApply(t, table)

			s := newStream(t, n)
			s.await(t, 50)
			for range 8 {
				for i, change := range states {
					change()
					mustApply(t, table)
					s.await(t, 3)
					if drop := c.member == expr.VerdictDrop; drop && s.came.Load() > 0 || !drop && s.dropped.Load() > 0 {
						t.Fatalf("a packet met something else around change %d", i)
					}
				}
			}
			if (s.came.Load() > 0) == (s.dropped.Load() > 0) {
				t.Errorf("%d packets came, %d were dropped", s.came.Load(), s.dropped.Load())
			}
		})
	}
}

// TestNoPacketIsHeldUpByARemoval: what the table accepts goes on while it is removed,
// however much there is to remove.
func TestNoPacketIsHeldUpByARemoval(t *testing.T) {
	n := kerneltest.New(t)
	table := open(t, n)
	output := nftables.Hook{Type: nftables.Filter, Number: nftables.Output}
	table.WantSet(nftables.Set{Name: "hosts", Key: v4})
	table.SetMembers("hosts", addrs("127.0.0.1")...)
	table.WantMap(nftables.Map{Name: "to", Key: name})
	table.WantVerdict("to", nftables.Interface("lo"), nftables.Goto("of0"))
	table.WantChain(nftables.Chain{Name: "output", Base: &output, Rules: []nftables.Rule{dispatch("to"), always(expr.VerdictDrop, "")}})
	for i := range 3000 {
		table.WantChain(chain(fmt.Sprint("of", i), from("hosts", expr.VerdictAccept, "")))
	}
	s := newStream(t, n)
	for range 10 {
		mustApply(t, table)
		s.await(t, 20)
		if err := table.Uninstall(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.await(t, 20)
	}
	if dropped := s.dropped.Load(); dropped > 0 {
		t.Errorf("%d of %d packets were dropped", dropped, s.sent.Load())
	}
}
