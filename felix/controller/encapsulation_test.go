package controller

import (
	"math/rand/v2"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	koratv1 "github.com/koratnet/korat/api/v1"
)

// simNode is a node that follows a pool, some steps behind.
type simNode struct {
	seen     koratv1.IPPool // the pool as the node last heard of it
	receives []koratv1.Encapsulation
	sends    koratv1.Encapsulation
	report   koratv1.NodePoolStatus
}

func (n *simNode) hear(p *koratv1.IPPool) { n.seen = *p.DeepCopy() }

// apply is what an agent does: it first takes what may come, then sends.
func (n *simNode) apply() {
	spec := n.seen.Spec.Encapsulation
	now := n.seen.Status.Encapsulation
	if now == "" {
		now = spec
	}
	n.receives = []koratv1.Encapsulation{spec, now}
	if before := n.seen.Status.EncapsulationBefore; before != "" {
		n.receives = append(n.receives, before)
	}
	n.sends = now
}

func (n *simNode) tell() {
	n.report = koratv1.NodePoolStatus{Name: n.seen.Name, Generation: n.seen.Generation, Receives: slices.Clone(n.receives), Sends: n.sends}
}

var modes = []koratv1.Encapsulation{
	koratv1.EncapsulationNone, koratv1.EncapsulationVXLAN, koratv1.EncapsulationVXLANCrossSubnet, koratv1.EncapsulationIPIP, koratv1.EncapsulationIPIPCrossSubnet,
}

// TestNoNodeSendsWhatAnotherCannotTake walks at random through changes of the spec
// while nodes hear, apply and report in any order: at no moment does one send what
// another does not receive, and every change comes to its end.
func TestNoNodeSendsWhatAnotherCannotTake(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 7))
		pool := &koratv1.IPPool{ObjectMeta: metav1.ObjectMeta{Name: "p", Generation: 1}, Spec: koratv1.IPPoolSpec{Encapsulation: modes[r.IntN(len(modes))]}}
		decide := func(nodes []*simNode) {
			var networks []koratv1.NodeNetwork
			for i, n := range nodes {
				networks = append(networks, koratv1.NodeNetwork{
					ObjectMeta: metav1.ObjectMeta{Name: string(rune('a' + i))},
					Status:     koratv1.NodeNetworkStatus{AgentVersion: "1", Pools: []koratv1.NodePoolStatus{n.report}},
				})
			}
			encapsulate(&pool.Status, pool.DeepCopy(), networks)
		}
		nodes := []*simNode{{}, {}, {}}
		decide(nil)
		for _, n := range nodes {
			n.hear(pool)
			n.apply()
			n.tell()
		}
		for step := range 400 {
			n := nodes[r.IntN(len(nodes))]
			switch r.IntN(12) {
			case 0:
				pool.Spec.Encapsulation, pool.Generation = modes[r.IntN(len(modes))], pool.Generation+1
			case 1, 2, 3:
				n.hear(pool)
			case 4, 5, 6:
				n.apply()
			case 7, 8:
				n.tell()
			default:
				decide(nodes)
			}
			for i, from := range nodes {
				for j, to := range nodes {
					if !slices.Contains(to.receives, from.sends) {
						t.Fatalf("seed %d, step %d: node %d sends %s, and node %d receives %v", seed, step, i, from.sends, j, to.receives)
					}
				}
			}
		}
		for range 6 {
			for _, n := range nodes {
				n.hear(pool)
				n.apply()
				n.tell()
			}
			decide(nodes)
		}
		if !meta.IsStatusConditionTrue(pool.Status.Conditions, koratv1.ConditionEncapsulated) || pool.Status.Encapsulation != pool.Spec.Encapsulation {
			t.Fatalf("seed %d: the change does not end: %+v", seed, pool.Status)
		}
	}
}

func TestWhoIsWaitedForAndHowItIsSaid(t *testing.T) {
	network := func(name, version string, s koratv1.NodePoolStatus) koratv1.NodeNetwork {
		s.Name = "p"
		return koratv1.NodeNetwork{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: koratv1.NodeNetworkStatus{AgentVersion: version, Pools: []koratv1.NodePoolStatus{s}}}
	}
	silent := network("silent", "1", koratv1.NodePoolStatus{})
	silent.Status.Conditions = []metav1.Condition{{Type: koratv1.ConditionReady, Status: metav1.ConditionUnknown, Reason: koratv1.ReasonAgentSilent}}
	pool := &koratv1.IPPool{ObjectMeta: metav1.ObjectMeta{Name: "p", Generation: 2}, Spec: koratv1.IPPoolSpec{Encapsulation: "VXLAN"}, Status: koratv1.IPPoolStatus{Encapsulation: "None"}}
	both := []koratv1.Encapsulation{"None", "VXLAN"}
	for name, c := range map[string]struct {
		nodes               []koratv1.NodeNetwork
		now, before         koratv1.Encapsulation
		reason, wantMessage string
	}{
		"a node that cannot receive it yet": {
			[]koratv1.NodeNetwork{network("b", "1", koratv1.NodePoolStatus{Generation: 2, Receives: both[:1]}), network("a", "1", koratv1.NodePoolStatus{Generation: 2, Receives: both})},
			"None", "", koratv1.ReasonPreparing, "nodes send in None until all can receive VXLAN; still to come: b",
		},
		"a node that could receive it, of an earlier change": {
			[]koratv1.NodeNetwork{network("b", "1", koratv1.NodePoolStatus{Generation: 1, Receives: both})},
			"None", "", koratv1.ReasonPreparing, "nodes send in None until all can receive VXLAN; still to come: b",
		},
		"nobody waits for agents that are silent or were never there": {
			[]koratv1.NodeNetwork{silent, network("planned", "", koratv1.NodePoolStatus{}), network("a", "1", koratv1.NodePoolStatus{Generation: 2, Receives: both})},
			"VXLAN", "None", koratv1.ReasonSwitching, "nodes begin to send in VXLAN instead of None",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var s koratv1.IPPoolStatus
			encapsulate(&s, pool, c.nodes)
			got := meta.FindStatusCondition(s.Conditions, koratv1.ConditionEncapsulated)
			if s.Encapsulation != c.now || s.EncapsulationBefore != c.before || got.Reason != c.reason || got.Message != c.wantMessage || got.Status != metav1.ConditionFalse {
				t.Errorf("in force %q before %q: %+v", s.Encapsulation, s.EncapsulationBefore, got)
			}
		})
	}
}
