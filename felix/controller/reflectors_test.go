package controller

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	koratv1 "github.com/koratnet/korat/api/v1"
)

// nodesIn makes candidates of a zone that have no part yet.
func nodesIn(zone string, n int) (out []member) {
	for i := range n {
		out = append(out, member{name: fmt.Sprintf("%s%03d", zone, i), zone: zone, asn: 64512, candidate: true, settled: true})
	}
	return out
}

// taken gives members the parts that were chosen.
func taken(members []member, parts map[string]koratv1.Reflection) []member {
	out := slices.Clone(members)
	for i := range out {
		out[i].now = parts[out[i].name]
	}
	return out
}

func reflectorsIn(parts map[string]koratv1.Reflection) string {
	var names []string
	for name, p := range parts {
		if p.Role == koratv1.RoleReflector {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func TestReflectorsOfZones(t *testing.T) {
	members := append(nodesIn("a", 3), nodesIn("b", 1)...)
	parts := reflections(members, 2)
	if got := reflectorsIn(parts); got != "a000 a001 b000" {
		t.Errorf("reflectors are %s", got)
	}
	if parts["a000"].ClusterID != parts["a002"].ClusterID || parts["a000"].ClusterID == parts["b000"].ClusterID {
		t.Errorf("groups are %v", parts)
	}
}

func TestAReflectorIsReplacedBeforeItDrains(t *testing.T) {
	members := nodesIn("a", 5)
	members = taken(members, reflections(members, 2))
	members[0].leaving = true
	parts := reflections(members, 2)
	if got := reflectorsIn(parts); got != "a000 a001 a002" {
		t.Fatalf("while the new one comes up reflectors are %s", got)
	}
	members = taken(members, parts)
	members[2].settled = false
	if got := reflectorsIn(reflections(members, 2)); got != "a000 a001 a002" {
		t.Errorf("while its sessions are not up reflectors are %s", got)
	}
	members[2].settled = true
	if got := reflectorsIn(reflections(members, 2)); got != "a001 a002" {
		t.Errorf("when they are reflectors are %s", got)
	}
	if got := reflectorsIn(reflections(members[1:], 2)); got != "a001 a002" {
		t.Errorf("without the node they are %s", got)
	}
}

func TestGroupsHaveAHundredNodesAndStay(t *testing.T) {
	members := nodesIn("a", 250)
	parts := reflections(members, 2)
	size := map[string]int{}
	for _, p := range parts {
		size[p.ClusterID]++
	}
	if len(size) != 3 {
		t.Fatalf("groups are %v", size)
	}
	more := append(taken(members, parts), nodesIn("b", 10)...)
	more = append(more, member{name: "zz", zone: "a", asn: 64512, candidate: true})
	for name, p := range reflections(more, 2) {
		if was, known := parts[name]; known && was != p {
			t.Errorf("%s was %v and is %v", name, was, p)
		}
	}
}

// TestChoosingReflectorsComesToRest: whatever happens to nodes, after some looks
// nothing changes any more, and every group has its reflectors.
func TestChoosingReflectorsComesToRest(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		var members []member
		for i := range 1 + r.IntN(40) {
			members = append(members, member{
				name: fmt.Sprintf("n%02d", i), zone: fmt.Sprint(r.IntN(3)), asn: int64(1 + r.IntN(2)),
				candidate: r.IntN(10) > 0, leaving: r.IntN(5) == 0, settled: r.IntN(2) == 0,
				now: koratv1.Reflection{
					ClusterID: []string{"", "244.0.0.1", "244.0.0.2"}[r.IntN(3)],
					Role:      []koratv1.ReflectionRole{koratv1.RoleClient, koratv1.RoleReflector}[r.IntN(2)],
				},
			})
		}
		for range 4 {
			members = taken(members, reflections(members, 2))
			for i := range members {
				members[i].settled = true
			}
		}
		parts := reflections(members, 2)
		able, reflectors, homes := map[string]int{}, map[string]int{}, map[string]home{}
		for _, m := range members {
			p := parts[m.name]
			if p != m.now {
				t.Fatalf("seed %d: %s is %v and becomes %v", seed, m.name, m.now, p)
			}
			if at, known := homes[p.ClusterID]; known && at != (home{m.asn, m.zone}) {
				t.Fatalf("seed %d: group %s is in two zones or AS", seed, p.ClusterID)
			}
			homes[p.ClusterID] = home{m.asn, m.zone}
			if m.candidate && !m.leaving {
				able[p.ClusterID]++
			}
			if p.Role == koratv1.RoleReflector && m.candidate && !m.leaving {
				reflectors[p.ClusterID]++
			}
		}
		for id, n := range able {
			if reflectors[id] != min(2, n) {
				t.Fatalf("seed %d: group %s has %d reflectors of %d that can be one", seed, id, reflectors[id], n)
			}
		}
	}
}

func TestASummaryOfSessions(t *testing.T) {
	for summary, want := range map[string]bool{"9/10": true, "8/10": false, "0/0": false, "": false, "1/1": true, "98/99": true} {
		if got := nearlyUp(summary); got != want {
			t.Errorf("%q is nearly up: %t", summary, got)
		}
	}
}

// A node may go between the choice and the write: there is nobody to tell then.
func TestANodeThatIsGoneIsNoErrorOfTheChoice(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := koratv1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	r := &reflecting{cluster: cluster{Client: fake.NewClientBuilder().WithScheme(scheme).Build()}, log: slog.New(slog.DiscardHandler)}
	gone := &koratv1.NodeNetwork{ObjectMeta: metav1.ObjectMeta{Name: "gone"}}
	if err := r.assign(t.Context(), gone, koratv1.Reflection{Role: koratv1.RoleReflector}); err != nil {
		t.Error(err)
	}
}
