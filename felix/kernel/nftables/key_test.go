package nftables

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/koratnet/korat/felix/kernel/nlsock"
)

func TestThePrefixOfAnIntervalIsFoundAgain(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		size := rapid.SampledFrom([]int{2, 4, 16}).Draw(rt, "size")
		n := rapid.IntRange(0, size*8).Draw(rt, "bits")
		b := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 0x7f, 0x80, 0xfe, 0xff}), size, size).Draw(rt, "bytes")
		s := spanOf(Key(append(b, byte(n)))).cut(n)
		k := s.key(size)
		first, end, open := ends(k)
		if open != (end == "") && !open {
			rt.Fatalf("ends(%v): %v %v %v", k, first, end, open)
		}
		if open {
			end = ""
		}
		if got, ok := prefixOf(first, end); !ok || got != k {
			rt.Fatalf("prefixOf(%v, %v) is %v, %v; not %v", first, end, got, ok, k)
		}
	})
}

func TestWhatIsNoPrefixIsNotTakenForOne(t *testing.T) {
	addr := func(s string) Key { return Addr(netip.MustParseAddr(s)) }
	for name, c := range map[string]struct{ first, end Key }{
		"three addresses":            {addr("10.0.0.0"), addr("10.0.0.3")},
		"not on its boundary":        {addr("10.0.0.1"), addr("10.0.0.3")},
		"to the end, not a prefix":   {addr("10.0.0.0"), ""},
		"everything but the first":   {addr("0.0.0.1"), ""},
		"a half not on its boundary": {addr("64.0.0.0"), addr("192.0.0.0")},
	} {
		if k, ok := prefixOf(c.first, c.end); ok {
			t.Errorf("%s: taken for %v", name, k)
		}
	}
}

func TestPortsAreHeldByFewPrefixes(t *testing.T) {
	for _, c := range []struct{ first, last uint16 }{{0, 65535}, {80, 80}, {1, 65534}, {1024, 65535}, {30000, 32767}, {7, 9}, {65535, 65535}, {0, 0}} {
		var held [65536]int
		all := Ports(c.first, c.last)
		for _, k := range all {
			from := int(k[0])<<8 | int(k[1])
			for p := range 1 << (16 - int(k[2])) {
				held[from+p]++
			}
		}
		for p, n := range held {
			want := 0
			if p >= int(c.first) && p <= int(c.last) {
				want = 1
			}
			if n != want {
				t.Fatalf("%v: port %d is held %d times by %v", c, p, n, all)
			}
		}
		if len(all) > 30 {
			t.Errorf("%v: %d prefixes", c, len(all))
		}
	}
}

func TestFieldsAreJoinedInWholeRegisters(t *testing.T) {
	got := Join(Addr(netip.MustParseAddr("10.1.2.3")), Protocol(6), Port(80))
	if diff := cmp.Diff(Key("\x0a\x01\x02\x03\x06\x00\x00\x00\x00\x50\x00\x00"), got); diff != "" {
		t.Error("(-want +got):\n" + diff)
	}
	h := setHeader([]Field{IPv4Addr, L4Proto, L4Port}, false)
	if int(h.keyLen) != len(got) {
		t.Errorf("a key of %d bytes in a set of %d", len(got), h.keyLen)
	}
}

func TestVerdictsAreReadAsTheyAreWritten(t *testing.T) {
	for _, v := range []Verdict{Accept, Drop, Return, Jump("chain"), Goto("another chain")} {
		var m nlsock.Messages
		r := m.Begin(0, 0, nil)
		start := m.Size()
		putVerdict(r, v)
		if got := verdictOf(m.Bytes()[start:]); got != v {
			t.Errorf("%q is read as %q", v, got)
		}
	}
}
