package agent

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/wireguard"
	"github.com/koratnet/korat/felix/report"
)

func TestAKeyIsAnnouncedWhileItsInterfaceWorks(t *testing.T) {
	ring, err := wireguard.OpenRing(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	key, since := ring.Key(desired.WireGuard4)
	n := &tunnels{ring: ring, wanted: map[desired.TunnelKind]desired.TunnelDevice{
		desired.VXLAN4: {Kind: desired.VXLAN4}, desired.WireGuard4: {Kind: desired.WireGuard4, Key: key, Port: 51820},
	}}
	works := map[desired.TunnelKind]error{desired.VXLAN4: nil, desired.WireGuard4: nil}
	if got := n.announced(works); got != nil {
		t.Errorf("before the engine has said anything: %v", got)
	}
	n.told = 1
	if got := n.announced(map[desired.TunnelKind]error{}); got != nil {
		t.Errorf("before the kernel was asked: %v", got)
	}
	if got := n.announced(map[desired.TunnelKind]error{desired.WireGuard4: errors.New("refused")}); got == nil || len(got) > 0 {
		t.Errorf("of an interface that does not work: %v", got)
	}
	want := []koratv1.WireGuardStatus{{Interface: "wg4-korat", PublicKey: key.String(), Port: 51820, KeySince: &metav1.Time{Time: since.Truncate(time.Second)}}}
	if diff := cmp.Diff(want, n.announced(works)); diff != "" {
		t.Error(diff)
	}
}

func TestEndsThatWereTriedInVainAreTold(t *testing.T) {
	n := &tunnels{wanted: map[desired.TunnelKind]desired.TunnelDevice{desired.VXLAN4: {}, desired.WireGuard4: {}, desired.WireGuard6: {}}}
	for name, c := range map[string]struct {
		state map[desired.TunnelKind]error
		want  []string
	}{
		"not tried yet":    {nil, nil},
		"they work":        {map[desired.TunnelKind]error{desired.WireGuard4: nil, desired.WireGuard6: nil}, nil},
		"another does not": {map[desired.TunnelKind]error{desired.VXLAN4: errors.New("no")}, nil},
		"neither does": {
			map[desired.TunnelKind]error{desired.WireGuard6: errors.New("no"), desired.WireGuard4: errors.New("refused")},
			[]string{"wg4-korat: refused", "wg6-korat: no"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, n.broken(c.state)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWhichNodesAreNotReachedEncrypted(t *testing.T) {
	encrypted := desired.Way{Encapsulation: desired.WireGuard, Reason: desired.HasKey}
	closed := desired.Way{Encapsulation: desired.WireGuard, Reason: desired.NoKey}
	plain := desired.Way{Reason: desired.NoKey}
	vxlan := desired.Way{Encapsulation: desired.VXLAN, Reason: desired.Always}
	for name, c := range map[string]struct {
		ways   map[string]desired.PoolWays
		broken []string
		want   *report.Encryption
	}{
		"nothing asks for it":      {map[string]desired.PoolWays{"p": {Nodes: map[desired.Way][]string{vxlan: {"a"}}}}, nil, nil},
		"all are":                  {map[string]desired.PoolWays{"p": {Nodes: map[desired.Way][]string{encrypted: {"a", "b"}}}}, nil, &report.Encryption{}},
		"a node alone that cannot": {nil, []string{"wg4-korat: no"}, &report.Encryption{Broken: []string{"wg4-korat: no"}}},
		"some are not": {
			map[string]desired.PoolWays{
				"p": {Nodes: map[desired.Way][]string{encrypted: {"a"}, plain: {"b"}}},
				"q": {Nodes: map[desired.Way][]string{encrypted: {"a"}, vxlan: {"b", "c"}}},
				"r": {Nodes: map[desired.Way][]string{closed: {"b"}}},
			},
			nil, &report.Encryption{Closed: []string{"b"}, Clear: []string{"b", "c"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, encryption(c.ways, c.broken)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
