package assign

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/koratnet/korat/ipam"
	"github.com/koratnet/korat/ipam/journal"
	"github.com/koratnet/korat/policy/selector"
)

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func labels(m map[string]string) selector.Labels { return selector.MakeLabels(m) }

// record is what the CNI server does with an address that was assigned.
func record(t *testing.T, a *Allocator, h ipam.Handle, addrs []netip.Addr) {
	t.Helper()
	if _, err := a.journal.(*journal.Journal).Attach(journal.Attachment{Handle: h, Addrs: addrs}); err != nil {
		t.Fatal(err)
	}
}

// give assigns, records and returns the one address of h.
func give(t *testing.T, a *Allocator, h ipam.Handle, r ipam.Request) netip.Addr {
	t.Helper()
	addrs, err := a.Assign(t.Context(), h, r)
	if err != nil {
		t.Fatal(err)
	}
	record(t, a, h, addrs)
	return addrs[0]
}

// end releases what h has.
func end(t *testing.T, a *Allocator, h ipam.Handle, at netip.Addr, keep time.Duration) {
	t.Helper()
	rest := a.Rest(h, []netip.Addr{at}, keep)
	if err := a.journal.(*journal.Journal).Detach(h, rest); err != nil {
		t.Fatal(err)
	}
	a.Release(h, []netip.Addr{at}, rest)
}

// Item 57: ownership is written by compare and swap, and a block that is not
// confirmed to be the node's is not handed out of; a stale release frees nothing.
func TestItem57OnlyAConfirmedBlockIsHandedOutOf(t *testing.T) {
	w, c := newWorld()
	p := pool("p", "10.0.0.0/30", 30)
	a := w.node(t, "a", t.TempDir(), c, p)
	at := give(t, a, handle(1), ipam.Request{})
	w.blocks[prefix("10.0.0.0/30")] = ipam.Owner{Node: "b", UID: "uid-b", Journal: "j"}
	w.hear(a)
	if got, err := a.Assign(t.Context(), handle(2), ipam.Request{}); err == nil {
		t.Errorf("%v was handed out of a block that is another's", got)
	}
	old, now := handle(1), handle(1)
	now.Sandbox = "second"
	end(t, a, old, at, 0)
	if err := a.Hold(now, []netip.Addr{at}); err != nil {
		t.Fatal(err)
	}
	a.Release(old, []netip.Addr{at}, journal.Rest{Until: c.t})
	if u := a.Usage()[0]; u.Held[at] != now {
		t.Errorf("a late release took the address of the next sandbox: %v", u.Held)
	}
}

// Item 60: an empty block goes back after it was seen empty twice, a grace apart,
// and one is kept; a part that another node has is its own to speak for.
func TestItem60APartThatWasGivenComesBackWhenNobodyNeedsIt(t *testing.T) {
	w, c := newWorld()
	p := pool("p", "10.0.0.0/29", 29)
	a := w.node(t, "a", t.TempDir(), c, p)
	for i := range 3 {
		give(t, a, handle(i), ipam.Request{})
	}
	dir := t.TempDir()
	b := w.node(t, "b", dir, c, p)
	w.lively(t, a, b)
	w.tell(a, b)
	got := give(t, b, handle(9), ipam.Request{}) // no block is left to claim
	part := b.Usage()[0].CIDR
	if !inside(part, prefix("10.0.0.0/29")) || w.blocks[part].Node != "b" || len(w.wants[prefix("10.0.0.0/29")]) != 0 {
		t.Fatalf("b has %s of %v, wants %v", part, w.blocks, w.wants)
	}
	if u := a.Usage()[0]; u.Given != 1<<(32-part.Bits()) || u.Counts.Held+u.Free+u.Given != 8 {
		t.Fatalf("a counts %+v", u.Counts)
	}
	for i := range 8 { // a hands out everything but the part
		if addrs, err := a.Assign(t.Context(), handle(20+i), ipam.Request{}); err == nil && part.Contains(addrs[0]) {
			t.Fatalf("%s was given twice", addrs[0])
		}
	}
	end(t, b, handle(9), got, 0)
	for range 3 {
		c.t = c.t.Add(idleGrace)
		if err := b.GiveBack(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.tell(a, b)
	}
	if _, there := w.blocks[part]; there {
		t.Fatal("an empty part is kept")
	}
	for range 2 {
		if err := a.Answer(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.t = c.t.Add(returnAfter)
	}
	if err := a.Answer(t.Context()); err != nil {
		t.Fatal(err)
	}
	if u := a.Usage()[0]; u.Given != 0 || !slices.Contains([]int{8}, u.Counts.Held+u.Resting+u.Free) {
		t.Errorf("a counts %+v, want the part back", u.Counts)
	}
	if s := a.journal.State(); len(s.Carved) != 0 {
		t.Errorf("journal has %v", s.Carved)
	}
}

// Item 61: what is free longest is used first, what was freed rests as long as its
// pool says, and a limit of blocks is one that the operator set and the error names.
func TestItem61FirstInFirstOutAfterACooldownAndNoHiddenLimit(t *testing.T) {
	w, c := newWorld()
	p := pool("p", "10.0.0.0/26", 31)
	p.Cooldown, p.MaxBlocks = time.Minute, 2
	a := w.node(t, "a", t.TempDir(), c, p)
	var at []netip.Addr
	for i := range 4 {
		at = append(at, give(t, a, handle(i), ipam.Request{}))
	}
	_, err := a.Assign(t.Context(), handle(9), ipam.Request{})
	if !errors.Is(err, ipam.ErrExhausted) || !strings.Contains(err.Error(), "its 2 blocks of pool p") {
		t.Fatalf("at the limit: %v", err)
	}
	end(t, a, handle(1), at[1], 0)
	c.t = c.t.Add(time.Second)
	end(t, a, handle(0), at[0], 0)
	c.t = c.t.Add(time.Minute - 2*time.Second)
	if got, err := a.Assign(t.Context(), handle(9), ipam.Request{}); err == nil {
		t.Fatalf("%v was handed out before its rest was over", got)
	}
	c.t = c.t.Add(2 * time.Second)
	if got := give(t, a, handle(9), ipam.Request{}); got != at[1] {
		t.Errorf("got %s, want %s, which was freed first", got, at[1])
	}
	p.MaxBlocks, p.Cooldown = 0, time.Second // applies to what rests already
	a.SetPool("p", &p)
	for i := range 50 { // and then there is no limit but the pool
		give(t, a, handle(100+i), ipam.Request{})
	}
}

// Item 62: annotation before configuration (both are names here) before selectors
// of node and namespace; disabled pools never; an address that is asked for honours
// what its pool allows; reservations are for those who ask.
func TestItem62WhichPool(t *testing.T) {
	w, c := newWorld()
	everybody, team := pool("everybody", "10.0.0.0/28", 30), pool("team", "10.0.1.0/28", 30)
	team.Namespaces = selector.Equals("team", "pay")
	manual, off, lb := pool("manual", "10.0.2.0/28", 30), pool("off", "10.0.3.0/28", 30), pool("lb", "10.0.4.0/28", 30)
	manual.Manual, off.Disabled, lb.Uses = true, true, ipam.LoadBalancer
	other := pool("other", "10.0.5.0/28", 30)
	other.Nodes = selector.Equals("name", "elsewhere")
	six := pool("six", "fd00::/124", 126)
	six.Manual = true
	pay, known := labels(map[string]string{"team": "pay"}), labels(map[string]string{"team": "shop"})
	for name, q := range map[string]struct {
		r    ipam.Request
		want string // ranges of the addresses, or the error
	}{
		"by the selectors":                    {ipam.Request{Namespace: known, Known: true}, "10.0.0.0/28"},
		"of its namespace as well":            {ipam.Request{Namespace: pay, Known: true}, "10.0.0.0/28"},
		"an unknown namespace":                {ipam.Request{}, "10.0.0.0/28"},
		"named":                               {ipam.Request{Pools4: []string{"team"}}, "10.0.1.0/28"},
		"named in order":                      {ipam.Request{Pools4: []string{"manual", "everybody"}}, "10.0.2.0/28"},
		"a manual pool":                       {ipam.Request{Pools4: []string{"manual"}}, "10.0.2.0/28"},
		"of another node's pool when named":   {ipam.Request{Pools4: []string{"other"}}, "10.0.5.0/28"},
		"both families":                       {ipam.Request{Pools6: []string{"six"}}, "10.0.0.0/28 fd00::/124"},
		"one family":                          {ipam.Request{Pools6: []string{"six"}, Families: []int{128}}, "fd00::/124"},
		"a family that no pool has":           {ipam.Request{Families: []int{32, 128}}, "no pool for this pod"},
		"disabled":                            {ipam.Request{Pools4: []string{"off"}}, `IPPool "off" is disabled`},
		"not for pods":                        {ipam.Request{Pools4: []string{"lb"}}, `IPPool "lb" is not for pods`},
		"of the other family":                 {ipam.Request{Pools4: []string{"six"}}, `expected an IPv4 pool`},
		"unknown":                             {ipam.Request{Pools4: []string{"none"}}, `there is no IPPool "none"`},
		"the very address":                    {ipam.Request{Addrs: []netip.Addr{addr("10.0.0.9")}}, "10.0.0.9/32"},
		"the very address of a manual pool":   {ipam.Request{Addrs: []netip.Addr{addr("10.0.2.9")}}, "10.0.2.9/32"},
		"an address of a disabled pool":       {ipam.Request{Addrs: []netip.Addr{addr("10.0.3.9")}}, "no enabled IPPool for pods contains it"},
		"an address of a pool for services":   {ipam.Request{Addrs: []netip.Addr{addr("10.0.4.9")}}, "no enabled IPPool for pods contains it"},
		"an address of no pool":               {ipam.Request{Addrs: []netip.Addr{addr("192.0.2.1")}}, "no enabled IPPool for pods contains it"},
		"a reserved address that is asked of": {ipam.Request{Addrs: []netip.Addr{addr("10.0.0.0")}}, "10.0.0.0/32"},
		"for a tunnel":                        {ipam.Request{Use: ipam.Tunnel}, "10.0.0.0/28"},
	} {
		t.Run(name, func(t *testing.T) {
			a := w.node(t, "a "+name, t.TempDir(), c, everybody, team, manual, off, lb, other, six)
			t.Cleanup(func() { clear(w.blocks) })
			a.SetReservation("gateways", []netip.Prefix{prefix("10.0.0.0/30")})
			addrs, err := a.Assign(t.Context(), handle(1), q.r)
			if err != nil {
				if !strings.Contains(err.Error(), q.want) {
					t.Errorf("got %v, want %s", err, q.want)
				}
				return
			}
			ranges := strings.Fields(q.want)
			if len(addrs) != len(ranges) {
				t.Fatalf("got %v, want %s", addrs, q.want)
			}
			for i, x := range addrs {
				if p, err := netip.ParsePrefix(ranges[i]); err != nil || !p.Contains(x) {
					t.Errorf("got %s, want one of %s", x, ranges[i])
				}
				if asked := slices.Contains(q.r.Addrs, x); prefix("10.0.0.0/30").Contains(x) && !asked {
					t.Errorf("%s is reserved", x)
				}
			}
		})
	}
}

// Item 62, the rest: reservations are subtracted from what is free, /32 blocks work.
func TestItem62ReservationsAndSingleAddressBlocks(t *testing.T) {
	w, c := newWorld()
	a := w.node(t, "a", t.TempDir(), c, pool("p", "10.0.0.0/30", 32))
	a.SetReservation("r", []netip.Prefix{prefix("10.0.0.0/31")})
	got := map[netip.Addr]bool{give(t, a, handle(0), ipam.Request{}): true, give(t, a, handle(1), ipam.Request{}): true}
	if !got[addr("10.0.0.2")] || !got[addr("10.0.0.3")] {
		t.Errorf("got %v", got)
	}
	if x, err := a.Assign(t.Context(), handle(2), ipam.Request{}); !errors.Is(err, ipam.ErrExhausted) {
		t.Errorf("reserved %v was handed out (%v)", x, err)
	}
	b := w.node(t, "b", t.TempDir(), c, pool("q", "10.0.1.0/28", 28))
	give(t, b, handle(3), ipam.Request{})
	b.SetReservation("r", []netip.Prefix{prefix("10.0.1.8/29")})
	if u := b.Usage()[0]; u.Counts.Held != 1 || u.Reserved != 8 || u.Free != 7 {
		t.Errorf("counts %+v", u.Counts)
	}
}

// Item 63: a pool that is disabled or deleted while pods have addresses of it gives
// nothing out, keeps what there is, and its blocks go when the last pod does. A node
// made anew under its name does not share a block with its predecessor.
func TestItem63APoolThatEndsAndANodeThatReturns(t *testing.T) {
	w, c := newWorld()
	p := pool("p", "10.0.0.0/28", 30)
	dir := t.TempDir()
	a := w.node(t, "a", dir, c, p)
	at := give(t, a, handle(1), ipam.Request{})
	kept := give(t, a, handle(2), ipam.Request{})
	end(t, a, handle(2), kept, time.Hour)
	p.Disabled = true
	a.SetPool("p", &p)
	if got, err := a.Assign(t.Context(), handle(3), ipam.Request{}); !errors.Is(err, ipam.ErrNoPool) {
		t.Fatalf("got %v, %v of a disabled pool", got, err)
	}
	end(t, a, handle(1), at, time.Hour)
	for range 3 {
		c.t = c.t.Add(idleGrace)
		if err := a.GiveBack(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if len(w.blocks) != 0 {
		t.Errorf("blocks %v hold the pool although no pod does", w.blocks)
	}

	p.Disabled = false
	a.SetPool("p", &p)
	w.hear(a)
	first := give(t, a, handle(4), ipam.Request{})
	b := New(open(t, t.TempDir(), "a"), w, c.now, quiet) // another machine of the name
	b.SetNode("another uid", nil)
	b.SetPool("p", &p)
	w.hear(b)
	b.Listed()
	if former := b.Former(); len(former) != 0 {
		t.Fatalf("a machine of which nothing is known takes %v over", former)
	}
	if got := give(t, b, handle(5), ipam.Request{}); a.blockFor(got) {
		t.Errorf("%s is of the block of %s, which another machine has", got, first)
	}
}

// blockFor reports whether addr is in an own block.
func (a *Allocator) blockFor(addr netip.Addr) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, ours := a.blockOf(addr)
	return ours
}

func open(t *testing.T, dir, node string) *journal.Journal {
	t.Helper()
	j, err := journal.Open(dir, node)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}

// Item 64: nothing is kept free for gateways or broadcasts.
func TestItem64EveryAddressOfABlockIsUsed(t *testing.T) {
	w, c := newWorld()
	a := w.node(t, "a", t.TempDir(), c, pool("p", "10.0.0.0/30", 30))
	got := map[netip.Addr]bool{}
	for i := range 4 {
		got[give(t, a, handle(i), ipam.Request{})] = true
	}
	if want := 4; len(got) != want || !got[addr("10.0.0.0")] || !got[addr("10.0.0.3")] {
		t.Errorf("got %v", slices.Collect(maps.Keys(got)))
	}
}
