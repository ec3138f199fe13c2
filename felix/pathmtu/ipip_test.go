//go:build vm

package pathmtu

import (
	"testing"

	"github.com/koratnet/korat/felix/desired"
)

// TestPathsThroughIPIP needs a kernel that has it: see hack/vm.
func TestPathsThroughIPIP(t *testing.T) {
	near, _, _, peer := tunneled(t, desired.IPIP4)
	p := proberOf(t, near, peer)
	eventuallySaid(t, near, p, "a good device", func(s Summary) bool {
		return s.Clear == 1 && len(s.Offloads) == 1 && s.Offloads[0] == Offload{Tunnel: desired.IPIP4.Device(), Intact: 1}
	})
}
