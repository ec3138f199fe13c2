package gobgp

import (
	"net/netip"
	"testing"
)

func TestOnLink(t *testing.T) {
	for _, tc := range []struct {
		local, peer string
		want        bool
	}{
		{"127.0.0.1", "127.0.0.2", true},
		{"127.9.0.1", "127.9.0.2", true},
		{"127.0.0.1", "198.18.0.1", false},
		{"198.18.0.2", "198.18.0.1", false}, // not our address: whatever is right, it is not TTL 1
	} {
		if got := onLink(netip.MustParseAddr(tc.local), netip.MustParseAddr(tc.peer)); got != tc.want {
			t.Errorf("from %s to %s on link: %t, want %t", tc.local, tc.peer, got, tc.want)
		}
	}
}
