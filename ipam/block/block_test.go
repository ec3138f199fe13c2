package block

import (
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/koratnet/korat/ipam"
)

var t0 = time.Unix(1_000_000, 0)

func handle(n string) ipam.Handle { return ipam.Handle{Namespace: "ns", Pod: n, Sandbox: "s-" + n} }

func TestFirstAndLastAddressOfABlockAreUsable(t *testing.T) {
	b := New(netip.MustParsePrefix("10.0.0.0/30"))
	for _, want := range []string{"10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3"} {
		if a, ok := b.Assign(handle(want), t0); !ok || a.String() != want {
			t.Fatalf("got %v %v, want %s", a, ok, want)
		}
	}
	if a, ok := b.Assign(handle("x"), t0); ok {
		t.Fatalf("a full block handed out %s", a)
	}
}

func TestAFreedAddressRestsAndThenIsReusedLast(t *testing.T) {
	b := New(netip.MustParsePrefix("10.0.0.0/31"))
	first, _ := b.Assign(handle("a"), t0)
	b.Release(first, handle("a"), t0.Add(30*time.Second), "")
	if a, _ := b.Assign(handle("b"), t0.Add(time.Second)); a == first {
		t.Fatalf("%s was handed out again at once", a)
	}
	if _, ok := b.Assign(handle("c"), t0.Add(29*time.Second)); ok {
		t.Fatal("an address was handed out before its rest was over")
	}
	if a, ok := b.Assign(handle("c"), t0.Add(30*time.Second)); !ok || a != first {
		t.Fatalf("got %v %v after the rest, want %s", a, ok, first)
	}
}

func TestALateReleaseOfAnEarlierSandboxDoesNotFreeItsSuccessor(t *testing.T) {
	b := New(netip.MustParsePrefix("10.0.0.0/32"))
	old, now := handle("a"), ipam.Handle{Namespace: "ns", Pod: "a", Sandbox: "second"}
	a, _ := b.Assign(old, t0)
	b.Release(a, old, t0, "")
	if got, ok := b.Assign(now, t0); !ok || got != a {
		t.Fatalf("got %v %v", got, ok)
	}
	if b.Release(a, old, t0, "") {
		t.Fatal("the first sandbox released the address of the second")
	}
}

// No history makes two handles hold one address, loses an address or frees one early.
func TestBooksBalanceOverRandomHistories(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cidr := netip.MustParsePrefix(rapid.SampledFrom([]string{"10.1.2.0/29", "fd00::8/125", "10.1.2.3/32"}).Draw(t, "cidr"))
		b, now := New(cidr), t0
		held, until := map[netip.Addr]ipam.Handle{}, map[netip.Addr]time.Time{}
		for i := range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 20).Draw(t, "s")) * time.Second)
			h := handle(string(rune('a' + i)))
			if rapid.Bool().Draw(t, "assign") {
				a, ok := b.Assign(h, now)
				if !ok {
					continue
				}
				if _, taken := held[a]; taken || now.Before(until[a]) || !cidr.Contains(a) {
					t.Fatalf("%s handed out while held, resting or foreign", a)
				}
				held[a] = h
				continue
			}
			for a, h := range held {
				if !b.Release(a, h, now.Add(30*time.Second), "") {
					t.Fatalf("release of held %s refused", a)
				}
				delete(held, a)
				until[a] = now.Add(30 * time.Second)
				break
			}
			if c := b.Counts(now); c.Held != len(held) || c.Held+c.Resting+c.Free != Size(cidr) {
				t.Fatalf("%+v, want %d held of %d", c, len(held), Size(cidr))
			}
		}
	})
}
