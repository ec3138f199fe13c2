package suite

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/e2e/lab"
)

var rolling = flag.Bool("rolling", false, "restart every node in every layout")

// layouts are ways in which nodes may learn the routes of the other rack.
var layouts = []struct {
	name     string
	lay      func(*testing.T)
	always   bool           // also without -rolling
	sessions map[string]int // of each node: one with its router, two with a node
}{
	{"top of rack", func(*testing.T) {}, true, map[string]int{"a1": 3, "a2": 3, "b1": 3, "b2": 3}},
	{"mesh", layMesh, false, map[string]int{"a1": 7, "a2": 7, "b1": 7, "b2": 7}},
	{"reflector", layReflector, true, map[string]int{"a1": 3, "a2": 3, "b1": 7, "b2": 3}},
}

// layMesh puts all nodes into one AS, where each tells all others. The routers need
// the routes too, of every node its own; what they say of pods is not taken.
func layMesh(t *testing.T) {
	create(t, cluster, &koratv1.BGPFilter{
		ObjectMeta: metav1.ObjectMeta{Name: "own"},
		Spec: koratv1.BGPFilterSpec{
			Import: []koratv1.BGPFilterRule{{Action: koratv1.FilterReject}},
			Export: []koratv1.BGPFilterRule{{Action: koratv1.FilterReject, Source: koratv1.SourceLearned}},
		},
	})
	for _, n := range cluster.Topology.Nodes() {
		network := &koratv1.NodeNetwork{ObjectMeta: metav1.ObjectMeta{Name: n.Name}}
		change(t, network, func() { network.Spec.ASNumber = 0 })
		t.Cleanup(func() {
			change(t, network, func() { network.Spec.ASNumber = koratv1.ASNumber(n.Rack.ASNumber) })
		})
	}
	for _, r := range cluster.Topology.Racks {
		peer := &koratv1.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: r.ToRs[0].Name}}
		change(t, peer, func() {
			peer.Spec.LocalASNumber, peer.Spec.Filters = koratv1.ASNumber(r.ASNumber), []string{"own"}
		})
		t.Cleanup(func() { change(t, peer, func() { peer.Spec.LocalASNumber, peer.Spec.Filters = 0, nil }) })
	}
}

// layReflector is layMesh where one node, b1, tells the others what all say.
func layReflector(t *testing.T) {
	layMesh(t)
	c := &koratv1.BGPConfiguration{ObjectMeta: metav1.ObjectMeta{Name: koratv1.BGPConfigurationName}}
	change(t, c, func() {
		c.Spec.Reflectors = &koratv1.Reflectors{NodeSelector: "kubernetes.io/hostname == 'b1'"}
	})
	t.Cleanup(func() { change(t, c, func() { c.Spec.Reflectors = nil }) })
}

// endings are how agent and speaker of a node end, one after the other.
var endings = []struct {
	signal string // to the speaker, which an agent leaves behind
	agent  func(*lab.Lab, context.Context, string) error
}{
	{"-TERM", (*lab.Lab).StopAgent},
	{"-KILL", (*lab.Lab).KillAgent},
	{"-KILL", (*lab.Lab).KillAgent},
}

// TestItem75RollingRestartOfAllNodesLosesNoPacket: 1,000 packets a second in all go
// between the racks. Agent and speaker of one node after the other end, in order and
// then killed twice within the restart time. No packet is lost, however routes travel.
// Without -rolling it is one node of each rack, of which one is the reflector.
func TestItem75RollingRestartOfAllNodesLosesNoPacket(t *testing.T) {
	namespace(t, cluster, "rolling")
	addr := map[string]netip.Addr{}
	for _, n := range cluster.Topology.Nodes() {
		addr[n.Name] = start(t, cluster, podOn(n.Name, "rolling", n.Name, nil))
	}
	for _, layout := range layouts {
		if !layout.always && !*rolling {
			continue
		}
		t.Run(layout.name, func(t *testing.T) {
			layout.lay(t)
			for node, sessions := range layout.sessions {
				eventually(t, "sessions of "+node, sessionsUp(node, sessions, time.Time{}))
			}
			ways := map[string]string{"a1": "b1", "b1": "a1", "a2": "b2", "b2": "a2"}
			for from, to := range ways {
				eventually(t, "path from "+from, func(context.Context) error { return reach(cluster, "rolling/"+from, addr[to]) })
			}
			stops := map[string]func() (sent, lost int){}
			for from, to := range ways {
				stops[from] = pingsEvery(t, cluster, 4*time.Millisecond, "rolling/"+from, addr[to])
			}
			for _, n := range cluster.Topology.Nodes() {
				if *rolling || n.Name == "a1" || n.Name == "b1" {
					restartThrice(t, n.Name, layout.sessions[n.Name])
				}
			}
			for from, stop := range stops {
				if sent, lost := stop(); lost != 0 {
					t.Errorf("from %s: %d of %d packets lost", from, lost, sent)
				}
			}
		})
	}
}

// restartThrice ends agent and speaker of a node in every way, and waits each time
// until all of its sessions are new ones.
func restartThrice(t *testing.T, node string, sessions int) {
	t.Helper()
	for _, e := range endings {
		ended := time.Now()
		if err := e.agent(cluster, t.Context(), node); err != nil {
			t.Fatal(err)
		}
		sh(t, cluster, node, "pkill", e.signal, "-f", "korat speaker")
		if err := cluster.StartAgent(t.Context(), node); err != nil {
			t.Fatal(err)
		}
		eventually(t, "sessions of "+node, sessionsUp(node, sessions, ended))
	}
}

// sessionsUp returns nil when a node tells of n sessions, all of them up since t or
// later.
func sessionsUp(node string, n int, t time.Time) func(context.Context) error {
	return func(ctx context.Context) error {
		var nn koratv1.NodeNetwork
		if err := cluster.Client.Get(ctx, client.ObjectKey{Name: node}, &nn); err != nil {
			return err
		}
		up := 0
		for _, s := range nn.Status.Sessions {
			if s.State == koratv1.SessionEstablished && !s.Since.Time.Before(t.Truncate(time.Second)) {
				up++
			}
		}
		if up != n || len(nn.Status.Sessions) != n {
			return fmt.Errorf("%d of %d sessions are new, expected %d: %+v", up, len(nn.Status.Sessions), n, nn.Status.Sessions)
		}
		return nil
	}
}
