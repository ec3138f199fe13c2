package report

import (
	"slices"
	"testing"

	koratv1 "github.com/koratnet/korat/api/v1"
)

func TestWhatIsAnEventOfOffloads(t *testing.T) {
	tunnel := func(offload koratv1.Switch) []koratv1.TunnelStatus {
		return []koratv1.TunnelStatus{{Interface: "vxlan4-korat", Offload: offload, OffloadReason: "why"}}
	}
	for what, c := range map[string]struct {
		was, is []koratv1.TunnelStatus
		want    []string
	}{
		"a new tunnel":        {nil, tunnel(koratv1.SwitchDisabled), nil},
		"nothing changed":     {tunnel(koratv1.SwitchEnabled), tunnel(koratv1.SwitchEnabled), nil},
		"it was disabled":     {tunnel(koratv1.SwitchEnabled), tunnel(koratv1.SwitchDisabled), []string{"the offload of vxlan4-korat is Disabled: why"}},
		"it was enabled":      {tunnel(koratv1.SwitchDisabled), tunnel(koratv1.SwitchEnabled), []string{"the offload of vxlan4-korat is Enabled: why"}},
		"the tunnel went":     {tunnel(koratv1.SwitchDisabled), nil, nil},
		"it is not known yet": {tunnel(koratv1.SwitchEnabled), tunnel(""), nil},
	} {
		if got := offloadEvents(c.was, c.is); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", what, got, c.want)
		}
	}
}
