package cniserver_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/koratnet/korat/felix/cniserver"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/pod"
	"github.com/koratnet/korat/ipam"
	"github.com/koratnet/korat/ipam/assign"
	"github.com/koratnet/korat/ipam/journal"
	"github.com/koratnet/korat/policy/selector"
)

// plugin is the directory of the real plugin, built once.
var plugin string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "korat-cni")
	if err != nil {
		panic(err)
	}
	plugin = dir
	build := exec.Command("go", "build", "-o", dir, "../../cmd/korat-cni")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		panic(fmt.Sprintf("build the plugin: %v\n%s", err, out))
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// agent is the part of an agent that the plugin meets.
type agent struct {
	t      *testing.T
	node   *kerneltest.Namespace
	run    string // run directory
	state  string
	kernel *kernel
	api    *api
	alloc  *assign.Allocator
	server *cniserver.Server
	log    *bytes.Buffer // at every level, of the last life
	books  *journal.Journal
	mtu    atomic.Int64 // of pods, in bytes
	later  atomic.Int64 // how far its clock is ahead, in nanoseconds
	stop   func()
	// assigning is called when an ADD is about to get its addresses; may be nil.
	assigning func()
}

// gated calls assigning.
type gated struct {
	*assign.Allocator
	a *agent
}

func (g gated) Assign(ctx context.Context, h ipam.Handle, r ipam.Request) ([]netip.Addr, error) {
	if g.a.assigning != nil {
		g.a.assigning()
	}
	return g.Allocator.Assign(ctx, h, r)
}

func newAgent(t *testing.T) *agent {
	a := &agent{t: t, node: kerneltest.New(t), run: t.TempDir(), state: t.TempDir(), api: &api{blocks: map[netip.Prefix]ipam.Block{}}}
	a.mtu.Store(1500)
	a.start()
	return a
}

func (a *agent) start() {
	a.t.Helper()
	var err error
	if a.books, err = journal.Open(a.state, "n"); err != nil {
		a.t.Fatal(err)
	}
	a.log = &bytes.Buffer{}
	log := slog.New(slog.NewTextHandler(a.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	alloc := assign.New(a.books, a.api, func() time.Time { return time.Now().Add(time.Duration(a.later.Load())) }, log)
	a.alloc = alloc
	alloc.SetNode("uid", selector.Labels(nil))
	alloc.SetPool("p", &ipam.Pool{Name: "p", CIDR: netip.MustParsePrefix("10.9.0.0/24"), BlockSize: 26})
	for _, b := range a.api.blocks {
		alloc.SetBlock(b)
	}
	alloc.Listed()
	a.kernel = &kernel{node: a.node, endpoints: map[string]*event.Endpoint{}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	started := make(chan struct{})
	go a.node.Do(func() { // its thread is in the node's namespace, as the agent is
		host, err := pod.NewHost()
		if err != nil {
			a.t.Error(err)
			close(started)
			return
		}
		defer host.Close()
		s := cniserver.New(cniserver.Config{
			RunDir: a.run, MTU: func() int { return int(a.mtu.Load()) }, Allocator: gated{alloc, a}, Journal: a.books, Wirer: inNode{host, a.node},
			Status: a.kernel, Box: a.kernel, Log: log,
		})
		a.server = s
		if err := s.Recover(); err != nil {
			a.t.Error(err)
		}
		close(started)
		done <- s.Run(ctx)
	})
	<-started
	kerneltest.Eventually(a.t, "the agent listens", func() bool { // the socket is there before
		conn, err := net.Dial("unix", filepath.Join(a.run, "cni.sock"))
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	a.stop = func() {
		cancel()
		if err := <-done; err != nil {
			a.t.Error(err)
		}
		a.books.Close()
		a.stop = func() {}
	}
	a.t.Cleanup(func() { a.stop() })
}

// inNode runs what concerns the node on a thread of its namespace, where a real
// agent's whole process is.
type inNode struct {
	*pod.Host
	node *kerneltest.Namespace
}

func (n inNode) Attach(s pod.Spec) (mac net.HardwareAddr, err error) {
	n.node.Do(func() { mac, err = n.Host.Attach(s) })
	return mac, err
}

func (n inNode) Prepare(s pod.Spec) (err error) {
	n.node.Do(func() { err = n.Host.Prepare(s) })
	return err
}

func (n inNode) SetMTU(s pod.Spec) (err error) {
	n.node.Do(func() { err = n.Host.SetMTU(s) })
	return err
}

func (n inNode) Check(s pod.Spec) (err error) {
	n.node.Do(func() { err = n.Host.Check(s) })
	return err
}

// conf returns the configuration of the plugin in a CNI version.
func (a *agent) conf(version string) *libcni.NetworkConfigList {
	a.t.Helper()
	return a.network("korat", version)
}

// network is conf with another name.
func (a *agent) network(name, version string) *libcni.NetworkConfigList {
	a.t.Helper()
	c, err := libcni.ConfListFromBytes(fmt.Appendf(nil,
		`{"cniVersion":%q,"name":%q,"plugins":[{"type":"korat-cni","socket":%q}]}`, version, name, filepath.Join(a.run, "cni.sock")))
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}

// sandbox is one incarnation of a pod.
type sandbox struct {
	ns *kerneltest.Namespace
	rt *libcni.RuntimeConf
}

func newSandbox(t *testing.T, id, podName string) sandbox {
	ns := kerneltest.New(t)
	return sandbox{ns, &libcni.RuntimeConf{
		ContainerID: id, NetNS: ns.Path(), IfName: "eth0",
		Args: [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "shop"}, {"K8S_POD_NAME", podName}},
	}}
}

func cni(t *testing.T) *libcni.CNIConfig {
	t.Helper()
	// What a test looked at go test remembers: of another plugin no result stands.
	if _, err := os.ReadDir("../../cmd/korat-cni"); err != nil {
		t.Fatal(err)
	}
	return libcni.NewCNIConfigWithCacheDir([]string{plugin}, t.TempDir(), nil)
}

func add(t *testing.T, c *libcni.CNIConfig, conf *libcni.NetworkConfigList, s sandbox) *current.Result {
	t.Helper()
	r, err := c.AddNetworkList(t.Context(), conf, s.rt)
	if err != nil {
		t.Fatal(err)
	}
	out, err := current.NewResultFromResult(r)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
