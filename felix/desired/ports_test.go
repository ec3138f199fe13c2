package desired

import (
	"testing"

	"github.com/koratnet/korat/policy/ir"
)

func TestItem72AnswersToPodsAreNotTakenForTunnels(t *testing.T) {
	vxlan, wireguard, ipip := TunnelDevice{Kind: VXLAN4}, TunnelDevice{Kind: WireGuard4, Port: 51820}, TunnelDevice{Kind: IPIP4}
	for _, c := range []struct {
		ends        []TunnelDevice
		ports, want ir.PortRange
	}{
		{nil, ir.PortRange{}, ir.PortRange{}},
		{nil, ir.PortRange{First: 4000, Last: 5000}, ir.PortRange{First: 4000, Last: 5000}},
		{[]TunnelDevice{ipip}, ir.PortRange{}, ir.PortRange{}},
		{[]TunnelDevice{vxlan}, ir.PortRange{}, ir.PortRange{First: 4790, Last: 65535}},
		{[]TunnelDevice{wireguard, vxlan}, ir.PortRange{}, ir.PortRange{First: 4790, Last: 51819}},
		{[]TunnelDevice{vxlan}, ir.PortRange{First: 32768, Last: 60999}, ir.PortRange{First: 32768, Last: 60999}},
		{[]TunnelDevice{vxlan}, ir.PortRange{First: 4000, Last: 4800}, ir.PortRange{First: 4000, Last: 4788}},
		{[]TunnelDevice{vxlan}, ir.PortRange{First: 4789, Last: 4800}, ir.PortRange{First: 4790, Last: 4800}},
		{[]TunnelDevice{vxlan}, ir.PortRange{First: 4000, Last: 4789}, ir.PortRange{First: 4000, Last: 4788}},
		{[]TunnelDevice{vxlan}, ir.PortRange{First: 4789, Last: 4789}, ir.PortRange{First: 4789, Last: 4789}},
	} {
		if got := (Masquerade{Ports: c.ports}).UDPPorts(c.ends); got != c.want {
			t.Errorf("of %v beside %v: %v, want %v", c.ports, c.ends, got, c.want)
		}
	}
}
