package bfd

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// The example was taken from the wire: what another implementation sends first.
func TestAPacketIsReadAsItIsOnTheWire(t *testing.T) {
	b := []byte{
		0x20, 0x48, 3, 24, 0, 0, 0, 1, 0, 0, 0, 0,
		0, 0x0f, 0x42, 0x40, 0, 0x04, 0x93, 0xe0, 0, 0, 0xc3, 0x50,
	}
	want := Packet{
		State: Down, Independent: true, Multiplier: 3, Mine: 1,
		DesiredTx: time.Second, RequiredRx: 300 * time.Millisecond, RequiredEchoRx: 50 * time.Millisecond,
	}
	got, err := Parse(b)
	if err != nil || got != want {
		t.Errorf("parsed %+v, %v; want %+v", got, err, want)
	}
	if diff := cmp.Diff(b, want.Append(nil)); diff != "" {
		t.Error(diff)
	}
}

func packets() *rapid.Generator[Packet] {
	return rapid.Custom(func(t *rapid.T) Packet {
		us := rapid.Map(rapid.Uint32(), func(n uint32) time.Duration { return time.Duration(n) * time.Microsecond })
		return Packet{
			State: State(rapid.IntRange(0, 3).Draw(t, "state")), Diag: Diag(rapid.IntRange(0, 31).Draw(t, "diag")),
			Poll: rapid.Bool().Draw(t, "P"), Final: rapid.Bool().Draw(t, "F"), Independent: rapid.Bool().Draw(t, "C"),
			Demand: rapid.Bool().Draw(t, "D"), Multiplier: rapid.Uint8Min(1).Draw(t, "mult"),
			Mine: rapid.Uint32Min(1).Draw(t, "mine"), Yours: rapid.Uint32Min(1).Draw(t, "yours"),
			DesiredTx: us.Draw(t, "tx"), RequiredRx: us.Draw(t, "rx"), RequiredEchoRx: us.Draw(t, "echo"),
		}
	})
}

func TestAPacketSurvivesTheWire(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := packets().Draw(t, "packet")
		got, err := Parse(want.Append(nil))
		if err != nil || got != want {
			t.Fatalf("parsed %+v, %v", got, err)
		}
	})
}

func TestPacketsThatAreDropped(t *testing.T) {
	good := Packet{State: Up, Multiplier: 3, Mine: 1, Yours: 2}.Append(nil)
	for name, spoil := range map[string]func(b []byte) []byte{
		"short":                             func(b []byte) []byte { return b[:23] },
		"longer than it is":                 func(b []byte) []byte { b[3] = 25; return b },
		"length below the least":            func(b []byte) []byte { b[3] = 23; return b },
		"version 0":                         func(b []byte) []byte { b[0] &= 0x1f; return b },
		"version 2":                         func(b []byte) []byte { b[0] = 0x40; return b },
		"multiplier 0":                      func(b []byte) []byte { b[2] = 0; return b },
		"multipoint":                        func(b []byte) []byte { b[1] |= 1; return b },
		"authenticated":                     func(b []byte) []byte { b[1] |= 4; return b },
		"no discriminator":                  func(b []byte) []byte { b[7] = 0; return b },
		"Up, and does not know us":          func(b []byte) []byte { b[11] = 0; return b },
		"Init, and does not know us":        func(b []byte) []byte { b[11], b[1] = 0, 0x80; return b },
		"nothing":                           func([]byte) []byte { return nil },
		"an authentication section, no bit": func(b []byte) []byte { b[3] = 26; return b },
	} {
		t.Run(name, func(t *testing.T) {
			if p, err := Parse(spoil(append([]byte(nil), good...))); err == nil {
				t.Errorf("accepted %+v", p)
			}
		})
	}
	if _, err := Parse(append(good, 1, 2, 3)); err != nil {
		t.Errorf("with padding: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Packet{State: Up, Multiplier: 3, Mine: 1, Yours: 2}.Append(nil))
	f.Add(Packet{State: Down, Poll: true, Multiplier: 1, Mine: 1}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Parse(b)
		if err != nil {
			return
		}
		if again, err := Parse(p.Append(nil)); err != nil || again != p {
			t.Errorf("%+v is %+v after the wire (%v)", p, again, err)
		}
	})
}

func FuzzReceive(f *testing.F) {
	f.Add(Packet{State: Down, Multiplier: 3, Mine: 1}.Append(nil), uint16(10))
	f.Fuzz(func(t *testing.T, b []byte, ms uint16) {
		start := time.Unix(0, 0)
		m := newMachine(DefaultTiming(), 7, start, func() float64 { return 0.5 })
		now := start
		for len(b) >= packetSize {
			if p, err := Parse(b[:packetSize]); err == nil {
				m.receive(p, now)
			}
			sent := 0
			for ; !m.deadline().After(now); sent++ {
				if sent > 3 {
					t.Fatalf("never at rest: %+v", m)
				}
				m.advance(now)
			}
			b, now = b[packetSize:], now.Add(time.Duration(ms)*time.Millisecond)
		}
	})
}
