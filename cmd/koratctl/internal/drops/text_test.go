package drops

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/flow/wire"
	"github.com/koratnet/korat/policy"
)

// TestEveryCauseHasWords: a cause that is added later must not be told as unknown.
func TestEveryCauseHasWords(t *testing.T) {
	zero := 0
	for c := desired.ByRule; c <= desired.Clear; c++ {
		text := Why(wire.Reason{Cause: c.String(), Direction: "ingress", Endpoint: "shop/db", Policy: "gnp/x", Rule: &zero, Tier: "t"})
		if strings.Contains(text, "cause") || strings.Contains(text, "%!") {
			t.Errorf("%s: %q", c, text)
		}
	}
	if text := Why(wire.Reason{Cause: "other", Endpoint: "kor1"}); text != "kor1 (cause other)" {
		t.Errorf("other: %q", text)
	}
}

func TestHintIsACommandThatIsUnderstood(t *testing.T) {
	a4, a6 := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")
	tier := wire.Reason{Cause: "tier"}
	for want, d := range map[string]wire.Drop{
		"10.0.0.1 shop/db:80/TCP":       {Src: a4, Dst: a4, DstPod: "shop/db", DstPort: 80, Protocol: policy.TCP.String(), Reason: tier},
		"fd00::1 [fd00::1]:53/UDP":      {Src: a6, Dst: a6, DstPort: 53, Protocol: policy.UDP.String(), Reason: tier},
		"shop/web [fd00::1]:128/ICMPv6": {Src: a6, SrcPod: "shop/web", Dst: a6, Message: &wire.Message{Type: 128}, Protocol: policy.ICMPv6.String(), Reason: tier},
	} {
		if got := Hint(d); got != "koratctl policy explain "+want+" --why" {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := Hint(wire.Drop{Reason: wire.Reason{Cause: "forged"}}); got != "" {
		t.Errorf("no policy denied, and still %q", got)
	}
}
