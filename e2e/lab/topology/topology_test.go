package topology_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/koratnet/korat/e2e/lab/topology"
)

func TestEveryFileOfTopologiesIsValid(t *testing.T) {
	files, err := filepath.Glob("../topologies/*.yaml")
	if err != nil || len(files) < 2 {
		t.Fatalf("topologies: %v %v", files, err)
	}
	for _, f := range files {
		if _, err := topology.Load(f); err != nil {
			t.Error(err)
		}
	}
}

func TestParseSaysWhatIsWrong(t *testing.T) {
	good, err := os.ReadFile("../topologies/default.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, old, new, want string }{
		{"a field that nobody knows", "management:", "colour: red\nmanagement:", `unknown field "colour"`},
		{"a name twice", "nodes: [b1, b2]", "nodes: [b1, a1]", `name "a1" is taken twice`},
		{"a name that is too long for a port", "nodes: [b1, b2]", "nodes: [b1, node-of-rack-b-2]", `want 1 to 15 characters`},
		{"subnets that overlap", "10.102.0.0/24", "10.101.0.0/16", "overlaps 10.101.0.0/24"},
		{"an address where a network is wanted", "10.102.0.0/24", "10.102.0.1/24", "want a network address"},
		{"a router of an unknown make", "kind: bird", "kind: cisco", `want an asNumber and kind frr or bird, have "cisco"`},
		{"a rack without AS", "asNumber: 65002", "asNumber: 0", "rack b: want an asNumber"},
		{"an advertisement that does not exist", "[Hosts]", "[Pods]", `advertise "Pods": want Blocks or Hosts`},
		{"a link to nowhere", "[tor-a, tor-b]", "[tor-a, tor-c]", `there is no router "tor-c"`},
		{"a host behind nothing", "tor: tor-a,", "tor: tor-z,", `there is no router "tor-z"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := strings.Replace(string(good), c.old, c.new, 1)
			if text == string(good) {
				t.Fatalf("the default topology does not hold %q", c.old)
			}
			if _, err := topology.Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one that holds %q", err, c.want)
			}
		})
	}
}

func TestPlanOfTheDualTopology(t *testing.T) {
	top, err := topology.Load("../topologies/dual-tor.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range top.Nodes() {
		got = append(got, n.Name+" "+n.Address.String()+" "+n.Management.String())
	}
	for _, r := range top.Routers() {
		line := r.Name
		for _, i := range r.Interfaces {
			line += " " + i.Name + "=" + i.Address.String()
		}
		for _, s := range append(r.Nodes, r.Spine...) {
			line += " " + s.Name + "@" + s.Peer.String()
		}
		got = append(got, line)
	}
	want := []string{
		"a1 10.101.0.11/24 10.100.0.11/24",
		"a2 10.101.0.12/24 10.100.0.12/24",
		"b1 10.102.0.11/24 10.100.0.13/24",
		"b2 10.102.0.12/24 10.100.0.14/24",
		"tor-a1 eth0=10.101.0.1/24 eth1=10.103.0.1/30 a1_4@10.101.0.11 a2_4@10.101.0.12 tor-b_4@10.103.0.2",
		"tor-a2 eth0=10.101.0.2/24 eth1=10.103.0.5/30 a1_4@10.101.0.11 a2_4@10.101.0.12 tor-b_4@10.103.0.6",
		"tor-b eth0=10.102.0.1/24 eth1=10.103.0.2/30 eth2=10.103.0.6/30 eth3=10.104.0.1/24 b1_4@10.102.0.11 b2_4@10.102.0.12 tor-a1_4@10.103.0.1 tor-a2_4@10.103.0.5",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
}

func TestKeepTakesNodesFromAllRacksInTurns(t *testing.T) {
	top, err := topology.Load("../topologies/default.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for n, want := range map[int]string{1: "a1", 2: "a1 b1", 3: "a1 a2 b1", 4: "a1 a2 b1 b2", 9: "a1 a2 b1 b2"} {
		var got []string
		for _, node := range top.Keep(n).Nodes() {
			got = append(got, node.Name)
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%d nodes: %s, want %s", n, s, want)
		}
	}
	if got := len(top.Nodes()); got != 4 {
		t.Errorf("the plan itself has %d nodes now", got)
	}
}
