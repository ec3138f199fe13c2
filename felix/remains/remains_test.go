package remains_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/koratnet/korat/bgp/child"
	"github.com/koratnet/korat/bgp/gobgp"
	"github.com/koratnet/korat/bgp/reconcile"
	"github.com/koratnet/korat/felix/backend"
	"github.com/koratnet/korat/felix/bandwidth"
	"github.com/koratnet/korat/felix/conflist"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/kernel/owned"
	"github.com/koratnet/korat/felix/remains"
)

// node is a host on which Korat was, and another network is.
type node struct {
	*kerneltest.Namespace
	remains.Config
}

var veth = desired.HostInterface("shop", "web")

func newNode(t *testing.T) *node {
	n := &node{kerneltest.New(t), remains.Config{
		RunDir: t.TempDir(), StateDir: t.TempDir(), ConfDir: t.TempDir(), BinDir: t.TempDir(),
		Log: slog.New(slog.DiscardHandler),
	}}
	kerneltest.Veth(n.Namespace, "other", kerneltest.New(t), "eth0")
	n.Up("other")
	for _, command := range []string{
		"ip address add 192.0.2.1/24 dev other",
		"ip route add 198.51.100.0/24 via 192.0.2.2 proto static",
		"ip route add 198.51.100.0/24 via 192.0.2.2 table 200 proto static",
		"ip rule add from 198.51.100.1 table 200",
		"nft add table inet other",
		"ipset create other hash:net",
		"iptables-nft -A FORWARD -i other -j ACCEPT",
	} {
		n.must(command)
	}
	n.write(t, filepath.Join(n.ConfDir, "20-other.conflist"), filepath.Join(n.BinDir, "portmap"))
	return n
}

func (n *node) must(command string) string {
	words := strings.Fields(command)
	return n.Run(words[0], words[1:]...)
}

func (n *node) write(t *testing.T, paths ...string) {
	t.Helper()
	for _, p := range paths {
		if err := os.WriteFile(p, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// others is what is there of the other network.
func (n *node) others(t *testing.T) string {
	t.Helper()
	var files []string
	for _, dir := range []string{n.ConfDir, n.BinDir} {
		all, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range all {
			files = append(files, f.Name())
		}
	}
	return strings.Join([]string{
		n.must("ip -o -brief address show dev other"), n.must("ip route show table all"), n.must("ip rule"), n.must("ip -6 rule"), n.must("nft list table inet other"),
		n.must("ipset list other"), n.must("iptables-nft -S FORWARD"), strings.Join(files, " "),
	}, "\n")
}

// inhabit makes all that Korat can have on a node, of both data planes.
func (n *node) inhabit(t *testing.T) {
	t.Helper()
	kerneltest.Veth(n.Namespace, veth, kerneltest.New(t), "eth0")
	n.Up(veth)
	device := desired.TunnelKinds[0].Device()
	for _, command := range []string{
		"ip route add 10.244.0.5 dev " + veth + " proto 112",
		"ip route add unreachable 10.244.0.0/26 proto 112",
		"ip route add 10.244.1.0/26 via 192.0.2.3 proto 112",
		"ip -6 route add unreachable fd00:10:244::/64 proto 112",
		"ip route add 10.244.2.0/26 via 192.0.2.3 table 200 proto 112",
		"ip rule add table 200 priority 32112 protocol 112",
		"ip -6 rule add table 200 priority 32112 protocol 112",
		"ip rule add from 10.244.0.0/16 table 11210 priority 11210 protocol 113",
		"ip rule add iif lo priority 11215 protocol 113 nop",
		"ip rule add iif lo ipproto udp sport 51820 priority 11211 protocol 113 goto 11215",
		"ip rule add iif lo from 192.0.2.2 table 11211 priority 11212 protocol 113",
		"ip link add " + device + " type vxlan id 4096 dstport 4789",
		"nft add table inet " + bandwidth.TableName,
	} {
		n.must(command)
	}
	if err := n.LinkSetAlias(n.Link(device), owned.Alias); err != nil {
		t.Fatal(err)
	}
	n.Do(func() {
		for _, b := range []desired.Backend{desired.IPTables, desired.NFTables} {
			enforce(t, b)
		}
	})
	n.write(t, filepath.Join(n.ConfDir, conflist.Name), filepath.Join(n.BinDir, conflist.Plugin),
		filepath.Join(n.RunDir, "flow.sock"), filepath.Join(n.StateDir, "journal"))
}

// enforce puts a backend in force for the pod.
func enforce(t *testing.T, b desired.Backend) {
	planes := backend.New(slog.New(slog.DiscardHandler))
	settings := desired.DefaultSettings()
	settings.Backend = b
	plane, _ := planes.Choose(t.Context(), settings)
	d := desired.Delta{Settings: &settings, Complete: true, Endpoints: map[string]*desired.Endpoint{
		veth: {Interface: veth, Pod: "shop/web"},
	}}
	for _, name := range plane.Parts {
		part, err := planes.Make(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, phase := range part.Phases {
			for _, r := range phase {
				r.Want(d)
				if err := errors.Join(r.Resync(t.Context()), r.Apply(t.Context())); err != nil {
					t.Fatalf("%s: %v", r.Name(), err)
				}
			}
		}
	}
}

// do runs f with the remains of the node.
func (n *node) do(t *testing.T, f func(*remains.Remains)) {
	t.Helper()
	n.Do(func() {
		r, err := remains.New(n.Config)
		if err != nil {
			t.Error(err)
			return
		}
		defer r.Close()
		f(r)
	})
}

func (n *node) found(t *testing.T) (found []string) {
	t.Helper()
	n.do(t, func(r *remains.Remains) {
		var err error
		if found, err = r.Find(t.Context()); err != nil {
			t.Error(err)
		}
	})
	return found
}

func (n *node) remove(t *testing.T) (err error) {
	t.Helper()
	n.do(t, func(r *remains.Remains) { err = r.Remove(t.Context()) })
	return err
}

func TestRemoveLeavesWhatIsOfOthersAndNothingElse(t *testing.T) {
	n := newNode(t)
	before := n.others(t)
	if found := n.found(t); len(found) > 0 {
		t.Fatalf("found before Korat was there: %v", found)
	}
	n.inhabit(t)
	full := n.found(t)
	for _, what := range []string{
		"network configuration", "interface of a pod", "route: 10.244.1.0/26", "route: 10.244.2.0/26 in table 200", "route: rule", "rule of routing", "tunnel", "limits of bandwidth",
		"rules of policy: IPTables", "rules of policy: NFTables", "plugin", "run directory", "state directory",
	} {
		if !slices.ContainsFunc(full, func(line string) bool { return strings.HasPrefix(line, what) }) {
			t.Errorf("%s is not found among %v", what, full)
		}
	}
	if err := n.remove(t); !errors.Is(err, remains.ErrPods) || !strings.Contains(err.Error(), veth) {
		t.Errorf("error %v, want ErrPods and the interface", err)
	}
	if diff := cmp.Diff(full, n.found(t)); diff != "" {
		t.Errorf("refused, and changed something all the same:\n%s", diff)
	}
	n.CutPods = true
	for range 2 {
		if err := n.remove(t); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, n.others(t)); diff != "" {
			t.Errorf("what is of others differs:\n%s", diff)
		}
	}
	if rules := n.must("iptables-save") + n.must("ip6tables-save") + n.must("nft list ruleset") + n.must("ipset list"); strings.Contains(strings.ToLower(rules), "kor") {
		t.Errorf("rules are left:\n%s", rules)
	}
}

func TestTheJournalMayStay(t *testing.T) {
	n := newNode(t)
	n.inhabit(t)
	n.CutPods, n.KeepState = true, true
	if err := n.remove(t); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(n.StateDir, "journal")); err != nil {
		t.Error(err)
	}
}

func TestNothingIsRemovedUnderAnAgent(t *testing.T) {
	n := newNode(t)
	n.inhabit(t)
	n.CutPods = true
	l, err := net.Listen("unix", filepath.Join(n.RunDir, "cni.sock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	full := n.found(t)
	if err := n.remove(t); !errors.Is(err, remains.ErrAgent) {
		t.Errorf("error %v, want ErrAgent", err)
	}
	if diff := cmp.Diff(full, n.found(t)); diff != "" {
		t.Errorf("refused, and changed something all the same:\n%s", diff)
	}
}

// TestTheSpeakerEnds: one that nobody ends goes on for as long as the node runs.
func TestTheSpeakerEnds(t *testing.T) {
	n := newNode(t)
	ended := make(chan error, 1)
	go func() {
		ended <- child.Run(context.WithoutCancel(t.Context()), child.Config{RunDir: n.RunDir, Log: n.Log, New: func(bool) reconcile.SpeakCloser {
			return gobgp.New(gobgp.Options{Log: n.Log})
		}})
	}()
	for deadline := time.After(time.Minute); !slices.Contains(n.found(t), "BGP speaker: "+child.Socket(n.RunDir)); {
		select {
		case err := <-ended:
			t.Fatalf("no speaker: %v", err)
		case <-deadline:
			t.Fatal("no speaker answers")
		default:
		}
	}
	if err := n.remove(t); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
