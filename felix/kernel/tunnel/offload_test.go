package tunnel_test

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/kernel/tunnel"
)

// losesUnfinished makes a node lose, of what comes through VXLAN, the beginnings of TCP
// connections from another node that nobody finished: where the checksum is to be, the
// kernel leaves the sum of addresses, protocol and length to the device.
func (s *site) losesUnfinished(from *site) {
	const syn = 40 // bytes, with the options of Linux
	sum := uint32(6 + syn)
	b := append(from.inside.AsSlice(), s.inside.AsSlice()...)
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	sum = sum>>16 + sum&0xffff
	s.Run("nft", "add table inet spoils")
	s.Run("nft", "add chain inet spoils in { type filter hook prerouting priority -300; }")
	s.Run("nft", fmt.Sprintf("add rule inet spoils in udp dport %d @th,%d,16 %#x drop", desired.VXLANPort, 8*(8+8+14+20+16), sum))
}

// connects reports whether a connection to another node gets an answer: nobody waits
// for it there.
func (s *site) connects(o *site) bool {
	out, _ := s.Try("timeout", "2", "bash", "-c", fmt.Sprintf("echo > /dev/tcp/%s/9", o.inside))
	return strings.Contains(out, "refused")
}

func with(mode desired.TunnelOffload) desired.Delta {
	settings := desired.DefaultSettings()
	settings.TunnelOffload = mode
	return desired.Delta{Settings: &settings}
}

func TestTheKernelFinishesPacketsThatADeviceSpoils(t *testing.T) {
	const kind = desired.VXLAN4
	a, b := joined(t, kind)
	b.losesUnfinished(a)
	expect := func(what string, want tunnel.Offload, reached bool) {
		t.Helper()
		if got := a.tunnels.Offloads()[kind]; got != want {
			t.Errorf("%s: %+v, want %+v", what, got, want)
		}
		if reached {
			kerneltest.Eventually(t, what+": a connection", func() bool { return a.connects(b) })
		} else if a.connects(b) {
			t.Errorf("%s: a connection is not spoilt", what)
		}
	}
	expect("at first", tunnel.Offload{On: true}, false)
	if !a.tunnels.Distrust(kind, "tried") || a.tunnels.Distrust(kind, "tried again") {
		t.Error("what is told twice is news twice, or never")
	}
	a.tunnels.LinkChanged(kind.Device())
	a.apply(t, desired.Delta{})
	expect("when it is found out", tunnel.Offload{Why: "tried"}, true)
	a.Run("ip", "link", "del", kind.Device())
	a.tunnels.LinkChanged(kind.Device())
	a.routes.LinkChanged(kind.Device())
	a.apply(t, desired.Delta{})
	expect("with a new interface", tunnel.Offload{Why: "tried"}, true)
	a.apply(t, with(desired.OffloadOn))
	expect("when it is enabled", tunnel.Offload{On: true, Why: "a NodeConfiguration says so"}, false)
	a.apply(t, with(desired.OffloadOff))
	expect("when it is disabled", tunnel.Offload{Why: "a NodeConfiguration says so"}, true)
	a.apply(t, with(desired.OffloadOn))
	a.apply(t, with(desired.OffloadAuto))
	expect("when it is to be tried again", tunnel.Offload{On: true}, false)
}

// TestWhatIsOffStaysOff: an agent that starts does not know why, and whatever the
// reason, packets arrive.
func TestWhatIsOffStaysOff(t *testing.T) {
	const kind = desired.VXLAN4
	a, b := joined(t, kind)
	a.apply(t, with(desired.OffloadOff))
	b.losesUnfinished(a)
	again := open(t, a.Namespace)
	mustApply(t, again, knows(a.own(kind), kind, b))
	if got := again.Offloads()[kind]; got.On || !strings.Contains(got.Why, "already") {
		t.Errorf("%+v, want it to stay off", got)
	}
	kerneltest.Eventually(t, "a connection", func() bool { return a.connects(b) })
}
