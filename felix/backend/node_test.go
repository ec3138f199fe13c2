package backend_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/koratnet/korat/felix/apply"
	"github.com/koratnet/korat/felix/backend"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/status"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// asLoop makes this program a process that runs a loop over the planes, as the
// agent does, and reads backends and flavours from its input: the programs that iptables
// starts work in the namespace of the process.
const asLoop = "KORAT_TEST_LOOP"

func TestMain(m *testing.M) {
	if os.Getenv(asLoop) == "" {
		os.Exit(m.Run())
	}
	if err := runLoop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func runLoop() error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	board := status.New(prometheus.NewRegistry())
	loop := apply.New(apply.Config{Phases: make([]apply.Phase, backend.Removed+1), Planes: backend.New(log), Board: board, Log: log})
	go func() {
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			s := desired.DefaultSettings()
			if _, err := fmt.Sscan(lines.Text(), &s.Backend, &s.Flavour); err != nil {
				panic(err)
			}
			loop.Want(cluster(s))
		}
	}()
	go func() {
		last := ""
		for range time.Tick(time.Millisecond) {
			e := board.Enforcement()
			now := fmt.Sprint(e.InForce, " missing ", e.Missing, " leftover ", e.Leftover)
			if now != last {
				fmt.Println(now)
			}
			last = now
		}
	}()
	return loop.Run(context.Background())
}

// The pods of the node, with an address of each family: friend may call server,
// stranger may not.
var pods = map[string][]netip.Addr{"server": addrs(1), "friend": addrs(2), "stranger": addrs(3)}

func addrs(pod byte) []netip.Addr {
	return []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, pod}), netip.AddrFrom16([16]byte{0: 0xfd, 15: pod})}
}

// cluster is all there is to know, with the settings.
func cluster(s desired.Settings) desired.Delta {
	id := ir.ProgramID{Policy: policy.Key{Namespace: "test", Name: "friends"}, Direction: policy.Ingress}
	d := desired.Delta{
		Settings: &s, Complete: true, Endpoints: map[string]*desired.Endpoint{},
		Programs: map[ir.ProgramID]*ir.Program{id: {ID: id, Rules: []ir.Rule{{
			Action: policy.Allow, SrcSets: []ir.SetID{"friends"},
		}}}},
		Sets: map[ir.SetID]*desired.SetChange{"friends": {Kind: ir.Addrs, Whole: true, Add: map[ir.Member]struct{}{}}},
	}
	for _, a := range pods["friend"] {
		d.Sets["friends"].Add[ir.Member{Prefix: netip.PrefixFrom(a, a.BitLen())}] = struct{}{}
	}
	for _, fixed := range []ir.SetID{desired.MasqueradeSet, desired.InsideSet, desired.NodesSet, desired.ServicesSet} {
		d.Sets[fixed] = &desired.SetChange{Kind: ir.Nets, Whole: true}
	}
	for name, addrs := range pods {
		iface := desired.HostInterface("test", name)
		d.Endpoints[iface] = &desired.Endpoint{
			Interface: iface, Pod: "test/" + name, Addrs: addrs,
			Ingress: ir.Chain{Default: policy.Allow}, Egress: ir.Chain{Default: policy.Allow},
		}
	}
	d.Endpoints[desired.HostInterface("test", "server")].Ingress.Tiers = []ir.Tier{{
		Name: policy.DefaultTier, Programs: []ir.ProgramID{id}, End: policy.Deny,
	}}
	return d
}

// The node, as its pods know it.
const router = "ee:ee:ee:ee:ee:ee"

var gateways = []string{"169.254.1.1", "fe80::ecee:eeff:feee:eeee"}

// node is a namespace with pods, in which a loop may run.
type node struct {
	*testing.T
	ns   *kerneltest.Namespace
	pods map[string]*kerneltest.Namespace

	process *exec.Cmd
	input   *os.File
	mu      sync.Mutex // guards state
	state   string     // what the process said last
}

func newNode(t *testing.T) *node {
	n := &node{T: t, ns: kerneltest.New(t), pods: map[string]*kerneltest.Namespace{}}
	// The lock of legacy is one for all namespaces of a machine.
	t.Setenv("XTABLES_LOCKFILE", filepath.Join(t.TempDir(), "xtables.lock"))
	n.ns.Run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
	for name, addrs := range pods {
		iface := desired.HostInterface("test", name)
		pod := kerneltest.Pod(n.ns, iface)
		n.ns.Run("ip", "link", "set", iface, "address", router)
		mac := pod.Link("eth0").Attrs().HardwareAddr.String()
		pod.Run("ip", "route", "add", gateways[0], "dev", "eth0", "scope", "link")
		for i, addr := range addrs {
			full := netip.PrefixFrom(addr, addr.BitLen()).String()
			n.ns.Run("ip", "route", "add", full, "dev", iface)
			n.ns.Run("ip", "neigh", "replace", addr.String(), "lladdr", mac, "dev", iface, "nud", "permanent")
			pod.Run("ip", "addr", "add", full, "dev", "eth0", "nodad")
			pod.Run("ip", "neigh", "replace", gateways[i], "lladdr", router, "dev", "eth0", "nud", "permanent")
			pod.Run("ip", "route", "add", "default", "via", gateways[i], "dev", "eth0")
		}
		n.pods[name] = pod
	}
	t.Cleanup(n.kill)
	return n
}

// start runs the loop.
func (n *node) start() {
	n.Helper()
	self, err := os.Executable()
	if err != nil {
		n.Fatal(err)
	}
	in, input, err := os.Pipe()
	if err != nil {
		n.Fatal(err)
	}
	n.process, n.input = exec.Command(self), input
	n.process.Env = append(os.Environ(), asLoop+"=1")
	n.process.Stdin, n.process.Stderr = in, n.Output()
	out, err := n.process.StdoutPipe()
	if err != nil {
		n.Fatal(err)
	}
	n.ns.Do(func() { err = n.process.Start() })
	if err != nil {
		n.Fatal(err)
	}
	in.Close()
	n.say("")
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			n.say(lines.Text())
		}
	}()
}

func (n *node) say(state string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.state = state
}

// kill ends the loop as SIGKILL does.
func (n *node) kill() {
	if n.process != nil {
		_ = n.process.Process.Kill()
		_ = n.process.Wait()
		n.input.Close()
		n.process = nil
	}
}

// ask tells the loop all there is to know, with the settings.
func (n *node) ask(b desired.Backend, f desired.Flavour) {
	n.Helper()
	if _, err := fmt.Fprintln(n.input, b, f); err != nil {
		n.Fatal(err)
	}
}

// inForce waits until a plane alone is in force, and nothing is in the kernel but
// its traces.
func (n *node) inForce(b desired.Backend, traces ...string) {
	n.Helper()
	want := string(b) + " missing <nil> leftover <nil>"
	n.says(func(state string) bool { return state == want })
	kerneltest.Eventually(n, fmt.Sprintf("traces of %v only", traces), func() bool { return slices.Equal(n.traces(), traces) })
}

// says waits until the process says what is wanted of its state.
func (n *node) says(want func(state string) bool) {
	n.Helper()
	last := ""
	n.Cleanup(func() {
		if n.Failed() {
			n.Logf("the process said last: %s", last)
		}
	})
	kerneltest.Eventually(n, "the state of the process", func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		last = n.state
		return want(n.state)
	})
}

// traces returns of what something is in the kernel.
func (n *node) traces() (found []string) {
	for trace, command := range map[string]string{
		"ipset":  "ipset list -n | grep kor[46]-",
		"nft":    "nft list table inet korat",
		"xt-nft": "iptables-nft-save | grep KORAT-; ip6tables-nft-save | grep KORAT-",
		"xt-old": "iptables-legacy-save | grep KORAT-; ip6tables-legacy-save | grep KORAT-",
	} {
		if n.ns.Run("sh", "-c", "{ "+command+"; } 2>/dev/null || true") != "" {
			found = append(found, trace)
		}
	}
	slices.Sort(found)
	return found
}
