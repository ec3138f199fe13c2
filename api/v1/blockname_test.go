package v1

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

func TestBlockNameIsItsCIDRWithDashes(t *testing.T) {
	tests := map[string]string{
		"10.244.0.64/26":        "10-244-0-64-26",
		"10.244.0.77/26":        "10-244-0-64-26",
		"10.244.0.7/32":         "10-244-0-7-32",
		"0.0.0.0/0":             "0-0-0-0-0",
		"fd00:10:244::/122":     "fd00-0010-0244-0000-0000-0000-0000-0000-122",
		"fd00:10:244::7f/122":   "fd00-0010-0244-0000-0000-0000-0000-0040-122",
		"::ffff:10.244.0.0/122": "0000-0000-0000-0000-0000-ffff-0af4-0000-122",
	}
	for cidr, want := range tests {
		if got := BlockName(netip.MustParsePrefix(cidr)); got != want {
			t.Errorf("BlockName(%s) = %s, want %s", cidr, got, want)
		}
	}
}

func TestBlockPrefixRefusesEveryOtherSpelling(t *testing.T) {
	names := []string{
		"",
		"-",
		"26",
		"10-244-0-64",
		"10-244-0-64-33",
		"10-244-0-64-026",
		"10-244-0-064-26",
		"10-244-0-65-26",
		"10-244-0-256-26",
		"10-244-0-64--26",
		"10.244.0.64-26",
		"10-244-0-64-26-",
		"fd00-10-244-0-0-0-0-0-122",
		"FD00-0010-0244-0000-0000-0000-0000-0000-122",
		"fd00-0010-0244-0000-0000-0000-0000-0001-122",
		"fd00-0010-0244-0000-0000-0000-0000-0000-129",
		"fd00-0010-0244-0000-0000-0000-0000-122",
		"fd00-0010-0244----122",
		"fe80-0000-0000-0000-0000-0000-0000-0000%a-122",
	}
	for _, name := range names {
		if p, err := BlockPrefix(name); err == nil {
			t.Errorf("BlockPrefix(%q) = %s, want an error", name, p)
		}
	}
}

func TestBlockNameAndPrefixAreInverse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawPrefix(t).Masked()
		name := BlockName(want)
		if got, err := BlockPrefix(name); err != nil || got != want {
			t.Fatalf("BlockPrefix(%q) = %s, %v, want %s", name, got, err, want)
		}
	})
}

func TestBlockNameIsAnObjectName(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := BlockName(drawPrefix(t))
		for _, c := range name {
			if (c < '0' || c > '9') && (c < 'a' || c > 'f') && c != '-' {
				t.Fatalf("%q in the name %q", c, name)
			}
		}
		if len(name) > 63 {
			t.Fatalf("name %q is longer than a label value may be", name)
		}
	})
}

func FuzzBlockPrefix(f *testing.F) {
	f.Add("10-244-0-64-26")
	f.Add("fd00-0010-0244-0000-0000-0000-0000-0000-122")
	f.Fuzz(func(t *testing.T, name string) {
		if p, err := BlockPrefix(name); err == nil && BlockName(p) != name {
			t.Errorf("BlockPrefix(%q) = %s, whose name is %q", name, p, BlockName(p))
		}
	})
}

func TestBlockNameOfAnInvalidPrefixIsABug(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("BlockName of the zero prefix did not panic")
		}
	}()
	BlockName(netip.Prefix{})
}

// drawPrefix draws any valid prefix of either family, host bits included.
func drawPrefix(t *rapid.T) netip.Prefix {
	var a16 [16]byte
	copy(a16[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "address"))
	addr := netip.AddrFrom16(a16)
	if rapid.Bool().Draw(t, "v4") {
		addr = netip.AddrFrom4([4]byte(a16[:4]))
	}
	return netip.PrefixFrom(addr, rapid.IntRange(0, addr.BitLen()).Draw(t, "bits"))
}
