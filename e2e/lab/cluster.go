package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	v1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/e2e/lab/machine"
	"github.com/koratnet/korat/e2e/lab/topology"
)

// Services, by the names under which machines know them.
const (
	controlPlaneService = "controlplane"
	proxyService        = "api-proxy"
	controllerService   = "controller"
	agentService        = "agent"
	runnerService       = "node-runner"
)

// ProxyCommand and RunnerCommand are arguments of the lab command: the API
// server's door on the host, and a node's runner.
const (
	ProxyCommand  = "api-proxy"
	RunnerCommand = "node-runner"
)

const apiPort = 6443

// ControlPlaneDir is the directory of the control plane's state, inside its machine.
const ControlPlaneDir = "/var/lib/korat/controlplane"

// Paths inside the machines.
const (
	agentKubeconfig      = "/etc/korat/agent.kubeconfig"
	runnerKubeconfig     = "/etc/korat/node-runner.kubeconfig"
	controllerKubeconfig = "/etc/korat/controller.kubeconfig"
	cniBin               = "/opt/cni/bin"
)

// chained are the plugins of containernetworking that nodes have beside ours,
// from where Debian puts them.
const (
	chainedFrom = "/usr/lib/cni"
	chained     = "portmap"
)

// Kubeconfig is the path of the admin's credentials, which work from the host.
func (l *Lab) Kubeconfig() string { return filepath.Join(l.State, "kubeconfig") }

func (l *Lab) apiAddress() netip.AddrPort {
	return netip.AddrPortFrom(l.Topology.APIServer().Addr(), apiPort)
}

// StartAPI starts the control plane and returns when it serves.
func (l *Lab) StartAPI(ctx context.Context) error {
	if err := l.launchAPI(); err != nil {
		return err
	}
	return l.waitAPI(ctx)
}

func (l *Lab) launchAPI() error {
	args := []string{
		machine.BinDir + "/controlplane", "serve", "--dir", ControlPlaneDir, "--bind", l.apiAddress().Addr().String(),
		"--service-cidr", l.ServiceCIDR(),
	}
	if l.Kubelets {
		args = append(args, "--nodes")
	}
	return l.machines[topology.ControlPlane].Start(controlPlaneService, machine.Command{Args: args})
}

// ServiceCIDR is where Services get their addresses, of the families of the pods;
// two of them are comma-separated, as the API server wants it.
func (l *Lab) ServiceCIDR() string {
	const v4, v6 = "10.96.0.0/16", "fd00:10:96::/112"
	switch {
	case l.Topology.IPv6():
		return v6
	case l.Topology.Pool6.IsValid():
		return v4 + "," + v6
	}
	return v4
}

func (l *Lab) waitAPI(ctx context.Context) error {
	cp := l.machines[topology.ControlPlane]
	return Eventually(ctx, func(context.Context) error {
		s, err := cp.Service(controlPlaneService)
		if err != nil {
			return err
		}
		if !s.Running {
			return fmt.Errorf("control plane: %s; see %s", s.Status, cp.Log(controlPlaneService))
		}
		_, err = os.Stat(cp.Path(ControlPlaneDir + "/ready"))
		return err
	})
}

// StopAPI ends the API server, etcd and the cluster's controllers, and returns
// when they are gone. What is stored stays for StartAPI.
func (l *Lab) StopAPI(ctx context.Context) error {
	return l.stop(ctx, l.machines[topology.ControlPlane], controlPlaneService)
}

// makeControlPlane waits for the control plane, which starts while the fabric is
// wired, and connects to it.
func (l *Lab) makeControlPlane(ctx context.Context) error {
	if err := l.waitAPI(ctx); err != nil {
		return err
	}
	l.say("control plane is ready")
	if err := l.openDoor(); err != nil {
		return err
	}
	return l.connect()
}

// makeCluster tells the API server all that the nodes need to find there.
func (l *Lab) makeCluster(ctx context.Context) error {
	if err := l.applyObjects(ctx); err != nil {
		return err
	}
	l.say("custom resources, roles and peers are applied")
	return l.giveCredentials()
}

// openDoor makes the API server reachable from the host: a process beside it
// serves a loopback socket of the host, the only one of the lab.
func (l *Lab) openDoor() error {
	door, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer door.Close()
	f, err := door.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	defer f.Close()
	cp := l.machines[topology.ControlPlane]
	err = cp.Start(proxyService, machine.Command{
		Args:  []string{machine.BinDir + "/lab", ProxyCommand, l.apiAddress().String()},
		Files: []*os.File{f},
	})
	if err != nil {
		return err
	}
	admin, err := clientcmd.LoadFromFile(cp.Path(ControlPlaneDir + "/admin.kubeconfig"))
	if err != nil {
		return err
	}
	for _, c := range admin.Clusters {
		c.Server = "https://" + door.Addr().String()
	}
	return clientcmd.WriteToFile(*admin, l.Kubeconfig())
}

// connect makes the client of the lab's own process.
func (l *Lab) connect() error {
	rest, err := clientcmd.BuildConfigFromFlags("", l.Kubeconfig())
	if err != nil {
		return err
	}
	rest.QPS = -1
	rest.Timeout = time.Minute
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1.AddToScheme(scheme)); err != nil {
		return err
	}
	logf.SetLogger(logr.Discard()) // of the library's client, which complains without one
	l.Client, err = client.New(rest, client.Options{Scheme: scheme})
	return err
}

// giveCredentials puts a kubeconfig for each program where it expects it. The
// names are those that charts/korat/rbac.yaml and our own manifest give rights to.
func (l *Lab) giveCredentials() error {
	if err := l.GiveKubeconfig(topology.ControlPlane, controllerKubeconfig, "korat:controller", ""); err != nil {
		return err
	}
	for _, n := range l.Topology.Nodes() {
		err := errors.Join(
			l.GiveKubeconfig(n.Name, agentKubeconfig, "korat:agent:"+n.Name, "korat:agents"),
			l.GiveKubeconfig(n.Name, runnerKubeconfig, "lab:node-runner:"+n.Name, "lab:node-runners"))
		if err != nil {
			return err
		}
	}
	return nil
}

// GiveKubeconfig puts credentials of user, in comma-separated groups, at path of
// a machine.
func (l *Lab) GiveKubeconfig(machineName, path, user, groups string) error {
	cmd := exec.Command(filepath.Join(l.binDir(), "controlplane"), "kubeconfig",
		"--dir", filepath.Join(l.machineDir(topology.ControlPlane), "korat", filepath.Base(ControlPlaneDir)),
		"--user", user, "--groups", groups)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("kubeconfig of %s: %w: %s", user, err, bytes.TrimSpace(complaint.Bytes()))
	}
	p := l.machines[machineName].Path(path)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		return err
	}
	return os.WriteFile(p, out.Bytes(), 0o600)
}

// makeNodes starts what runs on nodes and waits until the cluster is whole.
func (l *Lab) makeNodes(ctx context.Context) error {
	for _, n := range l.Topology.Nodes() {
		m := l.machines[n.Name]
		for _, plugin := range []string{filepath.Join(l.Bin, "korat-cni"), filepath.Join(chainedFrom, chained)} {
			if err := copyFile(plugin, filepath.Join(m.Path(cniBin), filepath.Base(plugin))); err != nil {
				return fmt.Errorf("CNI plugin: %w", err)
			}
		}
		if err := l.StartRunner(n.Name); err != nil {
			return err
		}
		if err := l.launchAgent(n.Name); err != nil {
			return err
		}
	}
	if err := l.startController(); err != nil {
		return err
	}
	if err := l.WaitNodes(ctx); err != nil {
		return err
	}
	l.say("%d nodes are Ready, their agents too", len(l.Topology.Nodes()))
	if err := l.WaitToRs(ctx); err != nil {
		return err
	}
	l.say("every session between routers and nodes established")
	return nil
}

func (l *Lab) startController() error {
	args := []string{
		machine.BinDir + "/korat", "controller", "--kubeconfig", controllerKubeconfig,
		"--leader-elect=false", // there is one, and nobody starts it again when it loses its lease
		"--default-pool", l.Topology.Pool.String(),
	}
	if l.Topology.Pool6.IsValid() {
		args = append(args, "--default-pool", l.Topology.Pool6.String())
	}
	return l.machines[topology.ControlPlane].Start(controllerService, machine.Command{Args: args})
}

// StartRunner starts the node's runner, which adopts the pods that run.
func (l *Lab) StartRunner(node string) error {
	n, err := l.Node(node)
	if err != nil {
		return err
	}
	addrs := []string{n.Address.Addr().String()}
	if n.Address6.IsValid() {
		addrs = append(addrs, n.Address6.Addr().String())
	}
	return l.machines[node].Start(runnerService, machine.Command{Args: []string{
		machine.BinDir + "/lab", RunnerCommand, "--node", node, "--kubeconfig", runnerKubeconfig,
		"--label", RackLabel + "=" + n.Rack.Name, "--address", strings.Join(addrs, ","),
	}})
}

// WaitNodes waits until every Node is Ready and every agent says so too.
func (l *Lab) WaitNodes(ctx context.Context) error {
	for _, n := range l.Topology.Nodes() {
		err := Eventually(ctx, func(ctx context.Context) error {
			var node corev1.Node
			if err := l.Client.Get(ctx, key("", n.Name), &node); err != nil {
				return err
			}
			for _, c := range node.Status.Conditions {
				if c.Type == corev1.NodeReady && c.Status != corev1.ConditionTrue {
					return fmt.Errorf("node %s is not Ready: %s", n.Name, c.Message)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		if err := l.WaitAgent(ctx, n.Name); err != nil {
			return err
		}
	}
	return nil
}

// Node returns the node of that name; there is an error if there is none.
func (l *Lab) Node(name string) (topology.Node, error) {
	for _, n := range l.Topology.Nodes() {
		if n.Name == name {
			return n, nil
		}
	}
	return topology.Node{}, fmt.Errorf("there is no node %q", name)
}
