package child

import (
	"bufio"
	"bytes"
	"net/netip"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/koratnet/korat/bgp"
)

func learnedGen() *rapid.Generator[bgp.Learned] {
	addr := rapid.Custom(func(t *rapid.T) netip.Addr {
		switch rapid.IntRange(0, 2).Draw(t, "family") {
		case 0:
			return netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "v4")))
		case 1:
			return netip.AddrFrom16([16]byte(append([]byte{0x20}, rapid.SliceOfN(rapid.Byte(), 15, 15).Draw(t, "v6")...)))
		default:
			return netip.MustParseAddr("fe80::1").WithZone(rapid.StringMatching(`[a-z0-9]{1,15}`).Draw(t, "zone"))
		}
	})
	return rapid.Custom(func(t *rapid.T) bgp.Learned {
		a := addr.Filter(func(a netip.Addr) bool { return a.Zone() == "" }).Draw(t, "prefix")
		l := bgp.Learned{
			Prefix:   netip.PrefixFrom(a, rapid.IntRange(0, a.BitLen()).Draw(t, "bits")),
			NextHops: rapid.SliceOfN(addr, 0, 4).Draw(t, "hops"),
		}
		if len(l.NextHops) == 0 {
			l.NextHops = nil
		} else if rapid.Bool().Draw(t, "weighted") {
			l.Weights = rapid.SliceOfN(rapid.Byte(), len(l.NextHops), len(l.NextHops)).Draw(t, "weights")
		}
		return l
	})
}

func TestFramesComeBackAsTheyWere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOf(learnedGen()).Draw(t, "learned")
		synced := rapid.Bool().Draw(t, "synced")
		var wire bytes.Buffer
		if err := writeFrame(bufio.NewWriter(&wire), want, synced); err != nil {
			t.Fatal(err)
		}
		have, haveSynced, err := readFrame(bufio.NewReader(&wire))
		if err != nil || haveSynced != synced || len(have) != len(want) || len(want) > 0 && !reflect.DeepEqual(have, want) {
			t.Fatalf("read %v, synced %v, error %v; want %v, %v", have, haveSynced, err, want, synced)
		}
		if wire.Len() != 0 {
			t.Fatalf("%d bytes were not read", wire.Len())
		}
	})
}

func FuzzReadFrame(f *testing.F) {
	var wire bytes.Buffer
	l := bgp.Learned{
		Prefix:   netip.MustParsePrefix("10.0.0.0/8"),
		NextHops: []netip.Addr{netip.MustParseAddr("fe80::1%eth0")}, Weights: []uint8{3},
	}
	if err := writeFrame(bufio.NewWriter(&wire), []bgp.Learned{l}, true); err != nil {
		f.Fatal(err)
	}
	f.Add(wire.Bytes())
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bufio.NewReader(bytes.NewReader(in))
		for {
			if _, _, err := readFrame(r); err != nil {
				return
			}
		}
	})
}
