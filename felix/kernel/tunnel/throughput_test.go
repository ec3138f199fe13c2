package tunnel_test

import (
	"strings"
	"testing"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
)

// byHand makes the same VXLAN tunnel with ip, on another port, and returns the
// addresses inside.
func byHand(t testing.TB, a, b *site) (insideA, insideB string) {
	t.Helper()
	insideA, insideB = "10.9.0.1", "10.9.0.2"
	for _, s := range []struct {
		*site
		to              *site
		inside, further string
		mac, macOther   string
	}{{a, b, insideA, insideB, "02:00:00:00:00:01", "02:00:00:00:00:02"}, {b, a, insideB, insideA, "02:00:00:00:00:02", "02:00:00:00:00:01"}} {
		for _, command := range []string{
			"ip link add hand address " + s.mac + " type vxlan id 7 dstport 4790 local " + s.underlay.String() + " nolearning",
			"ip link set hand mtu 1450 up",
			"ip addr add " + s.inside + "/32 dev hand",
			"bridge fdb add " + s.macOther + " dev hand dst " + s.to.underlay.String(),
			"ip route add " + s.further + "/32 via " + s.to.underlay.String() + " dev hand onlink",
			"ip neigh add " + s.to.underlay.String() + " lladdr " + s.macOther + " dev hand nud permanent",
		} {
			f := strings.Fields(command)
			s.Run(f[0], f[1:]...)
		}
	}
	return insideA, insideB
}

// BenchmarkBesideByHand takes turns between our tunnel, one made by hand, and the
// plain underlay.
func BenchmarkBesideByHand(b *testing.B) {
	x, y := joined(b, desired.VXLAN4)
	_, insideY := byHand(b, x, y)
	kerneltest.Race{
		From: x.Namespace, To: y.Namespace, Bytes: 64 << 20, Trips: 2000,
		Ways: map[string]string{"ours": y.inside.String(), "byhand": insideY, "plain": y.underlay.String()},
	}.Run(b)
}
