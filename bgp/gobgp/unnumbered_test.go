package gobgp

import (
	"net"
	"testing"

	"golang.org/x/net/ipv6"
)

func TestOnlyTheLinkIsAnswered(t *testing.T) {
	ifi := &net.Interface{Index: 7}
	asked := []byte{routerSolicitation, 0, 0, 0, 0, 0, 0, 0}
	near := &ipv6.ControlMessage{HopLimit: hopLimit, IfIndex: ifi.Index}
	for name, tc := range map[string]struct {
		packet []byte
		info   *ipv6.ControlMessage
		want   bool
	}{
		"a solicitation":           {asked, near, true},
		"one that a router passed": {asked, &ipv6.ControlMessage{HopLimit: 254, IfIndex: ifi.Index}, false},
		"one of another link":      {asked, &ipv6.ControlMessage{HopLimit: hopLimit, IfIndex: 8}, false},
		"one of unknown origin":    {asked, nil, false},
		"one that is cut off":      {asked[:7], near, false},
		"one with another code":    {[]byte{routerSolicitation, 1, 0, 0, 0, 0, 0, 0}, near, false},
		"something else":           {[]byte{135, 0, 0, 0, 0, 0, 0, 0}, near, false},
		"nothing":                  {nil, near, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := fromLink(tc.packet, routerSolicitation, tc.info, ifi); got != tc.want {
				t.Errorf("answered: %t, want %t", got, tc.want)
			}
		})
	}
}
