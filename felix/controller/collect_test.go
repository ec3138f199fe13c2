package controller

import (
	"net/netip"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	koratv1 "github.com/koratnet/korat/api/v1"
)

func owned(uid, node, nodeUID string) koratv1.Block {
	b := block("10.244.0.0/28", "p", 0)
	b.UID, b.Spec.Node, b.Spec.NodeUID = types.UID(uid), node, nodeUID
	return b
}

func TestItem59ABlockIsDueWhenItsNodeWasGoneForTheGrace(t *testing.T) {
	const grace = 15 * time.Minute
	t0 := time.Unix(1e6, 0)
	there, gone, renewed := map[string]types.UID{"n": "u1"}, map[string]types.UID{}, map[string]types.UID{"n": "u2"}
	type look struct {
		after time.Duration
		block koratv1.Block
		nodes map[string]types.UID
		due   bool
	}
	of := owned("b", "n", "u1")
	takenOver := owned("b", "n", "u0")
	for name, looks := range map[string][]look{
		"never while the node lives":        {{0, of, there, false}, {time.Hour, of, there, false}},
		"gone":                              {{0, of, gone, false}, {grace - 1, of, gone, false}, {grace, of, gone, true}, {2 * grace, of, gone, true}},
		"made anew under the name":          {{0, of, renewed, false}, {grace, of, renewed, true}},
		"the node came back":                {{0, of, gone, false}, {grace - 1, of, there, false}, {grace, of, gone, false}, {2 * grace, of, gone, true}},
		"another owner begins anew":         {{0, of, gone, false}, {grace, takenOver, gone, false}, {2 * grace, takenOver, gone, true}},
		"another block of the name as well": {{0, of, gone, false}, {grace, owned("c", "n", "u1"), gone, false}},
	} {
		t.Run(name, func(t *testing.T) {
			s := sightings{}
			for i, l := range looks {
				got := s.due(orphans([]koratv1.Block{l.block}, l.nodes), t0.Add(l.after), grace)
				if (len(got) == 1) != l.due {
					t.Errorf("look %d: due %t, want %t", i, len(got) == 1, l.due)
				}
			}
		})
	}
}

func TestTheOwnerOfABlockIsAskedBeforeItIsCollected(t *testing.T) {
	const patience = time.Minute
	t0 := time.Unix(1e6, 0)
	asked := koratv1.BlockRequest{JournalID: asker, Number: t0.UnixNano()}
	refused := asked
	refused.Refused = "10.244.0.3 is held by pod a/b"
	other := koratv1.BlockRequest{JournalID: "j", Refused: "no"}
	for name, c := range map[string]struct {
		requests []koratv1.BlockRequest
		after    time.Duration
		want     question
	}{
		"not asked yet":                       {nil, time.Hour, unasked},
		"what others ask is not our business": {[]koratv1.BlockRequest{other}, time.Hour, unasked},
		"it has time":                         {[]koratv1.BlockRequest{other, asked}, patience - 1, awaited},
		"it is silent":                        {[]koratv1.BlockRequest{other, asked}, patience, gone},
		"it lives":                            {[]koratv1.BlockRequest{refused}, time.Hour, answers},
	} {
		b := owned("b", "n", "u")
		b.Spec.Requests = c.requests
		got, says := questionOf(&b, t0.Add(c.after), patience)
		if got != c.want || (got == answers) != (says == refused.Refused) {
			t.Errorf("%s: got %d, %q, want %d", name, got, says, c.want)
		}
	}
}

func TestWhoClaimsAnAddressOfABlock(t *testing.T) {
	b := owned("b", "n", "u")
	claims := map[netip.Addr]string{
		netip.MustParseAddr("10.244.0.16"): "a/beside", netip.MustParseAddr("10.244.0.15"): "a/last", netip.MustParseAddr("fd00::1"): "a/six",
	}
	if got := claimant(&b, nil, claims); got != "a/last" {
		t.Errorf("got %q, want the pod on the last address", got)
	}
	part := block("10.244.0.15/32", "p", 1)
	if got := claimant(&b, partsOf(&b, []koratv1.Block{b, part}), claims); got != "" {
		t.Errorf("got %q, which has an address of a part that was given away", got)
	}
	delete(claims, netip.MustParseAddr("10.244.0.15"))
	if got := claimant(&b, nil, claims); got != "" {
		t.Errorf("got %q, want nobody", got)
	}
}
