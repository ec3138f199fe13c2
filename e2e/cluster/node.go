package cluster

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/koratnet/korat/e2e/lab"
	"github.com/koratnet/korat/e2e/lab/machine"
	"github.com/koratnet/korat/e2e/lab/topology"
)

//go:embed node/containerd.toml
var containerdConfig []byte

//go:embed node/kubelet.yaml
var kubeletConfig []byte

// Services of a node, by the names under which machines know them.
const (
	containerdService = "containerd"
	kubeletService    = "kubelet"
	proxyService      = "kube-proxy"
)

// Files of a node.
const (
	containerdFile    = "/etc/containerd.toml"
	kubeletFile       = "/etc/kubernetes/kubelet.yaml"
	kubeletKubeconfig = "/etc/kubernetes/kubelet.kubeconfig"
	proxyKubeconfig   = "/etc/kubernetes/kube-proxy.kubeconfig"
	authorityFile     = "/etc/kubernetes/ca.crt"
	manifestDir       = "/etc/kubernetes/manifests"
)

// referencePlugins are containernetworking's, where Debian puts them. Nodes have
// them in the usual place, as from the packages that kubelets come with.
const referencePlugins = "/usr/lib/cni"

// kubernetes is the multi-call binary inside machines.
const kubernetes = machine.BinDir + "/controlplane"

func (c *Cluster) startNode(ctx context.Context, n topology.Node) error {
	m := c.Machine(n.Name)
	_, err := os.Stat(m.Path(containerdFile))
	empty := errors.Is(err, os.ErrNotExist)
	if empty {
		// The runtime brings up each pod's loopback with a plugin; others are for networks.
		if err := os.CopyFS(m.Path("/opt/cni/bin"), os.DirFS(referencePlugins)); err != nil {
			return fmt.Errorf("reference plugins: %w", err)
		}
	}
	if err := c.writeFiles(m); err != nil {
		return err
	}
	if err := m.Start(containerdService, machine.Command{Args: []string{"/usr/bin/containerd", "-c", containerdFile}}); err != nil {
		return err
	}
	if err := waitContainerd(ctx, m); err != nil {
		return err
	}
	if empty {
		if err := c.importAll(n.Name); err != nil {
			return err
		}
	}
	addrs := []string{n.Address.Addr().String()}
	if c.Topology.Pool6.IsValid() {
		addrs = append(addrs, n.Address6.Addr().String())
	}
	err = m.Start(kubeletService, machine.Command{Args: []string{
		kubernetes, "kubelet", "--config", kubeletFile, "--kubeconfig", kubeletKubeconfig,
		"--hostname-override", n.Name, "--node-ip", strings.Join(addrs, ","),
		"--node-labels", lab.RackLabel + "=" + n.Rack.Name,
	}})
	if err != nil {
		return err
	}
	err = m.Start(proxyService, machine.Command{Args: []string{
		kubernetes, "kube-proxy", "--kubeconfig", proxyKubeconfig, "--hostname-override", n.Name,
		"--proxy-mode", c.o.ProxyMode, "--cluster-cidr", strings.Join(c.pools(), ","),
		"--conntrack-max-per-core", "0", // which would be the whole machine's
		"--oom-score-adj", "0",
	}})
	if err != nil {
		return err
	}
	return c.waitRegistered(ctx, n.Name)
}

func (c *Cluster) writeFiles(m *machine.Machine) error {
	ca, err := os.ReadFile(c.Machine(topology.ControlPlane).Path(lab.ControlPlaneDir + "/pki/ca.crt"))
	if err != nil {
		return err
	}
	dns, err := c.DNS()
	if err != nil {
		return err
	}
	files := map[string][]byte{
		containerdFile: containerdConfig,
		kubeletFile:    bytes.ReplaceAll(kubeletConfig, []byte("CLUSTER_DNS"), []byte(`"`+dns.String()+`"`)),
		authorityFile:  ca,
		"/etc/hosts":   []byte("127.0.0.1 localhost\n::1 localhost\n"),
		// Nobody answers there: a cluster on one machine knows no names of the world.
		"/etc/resolv.conf": []byte("nameserver 127.0.0.1\n"),
	}
	if err := os.MkdirAll(m.Path(manifestDir), 0o755); err != nil {
		return err
	}
	for path, content := range files {
		if err := replaceFile(m.Path(path), content); err != nil {
			return err
		}
	}
	return errors.Join(
		c.GiveKubeconfig(m.Name, kubeletKubeconfig, "system:node:"+m.Name, "system:nodes"),
		c.GiveKubeconfig(m.Name, proxyKubeconfig, "system:kube-proxy", ""))
}

// replaceFile writes a file anew, also where a link was.
func replaceFile(path string, content []byte) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.WriteFile(path, content, 0o644)
}

func (c *Cluster) pools() []string {
	out := []string{c.Topology.Pool.String()}
	if c.Topology.Pool6.IsValid() {
		out = append(out, c.Topology.Pool6.String())
	}
	return out
}

// DNS is the address of the Service kube-dns, the tenth of the first range of
// Services.
func (c *Cluster) DNS() (netip.Addr, error) {
	first, _, _ := strings.Cut(c.ServiceCIDR(), ",")
	p, err := netip.ParsePrefix(first)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("addresses of Services: %w", err)
	}
	a := p.Masked().Addr()
	for range 10 {
		a = a.Next()
	}
	return a, nil
}

func waitContainerd(ctx context.Context, m *machine.Machine) error {
	return whileRunning(ctx, m, func(context.Context) error {
		return run(m, "/usr/bin/ctr", "version")
	}, containerdService)
}

// whileRunning waits until check returns nil, and no longer than the services run.
func whileRunning(ctx context.Context, m *machine.Machine, check func(context.Context) error, services ...string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	return lab.Eventually(ctx, func(ctx context.Context) error {
		for _, name := range services {
			s, err := m.Service(name)
			if err != nil {
				return err
			}
			if !s.Running {
				err := fmt.Errorf("%s: %s; see %s", name, s.Status, m.Log(name))
				cancel(err)
				return err
			}
		}
		return check(ctx)
	})
}

// importAll gives a node the images that every node has.
func (c *Cluster) importAll(node string) error {
	for _, dir := range c.o.Images {
		archives, err := filepath.Glob(filepath.Join(dir, "*.tar"))
		if err != nil {
			return err
		}
		for _, a := range archives {
			if err := c.Import(node, a); err != nil {
				return err
			}
		}
	}
	return nil
}

// Import gives a node the images of an archive on the host.
func (c *Cluster) Import(node, archive string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	cmd := exec.Command("/usr/bin/ctr", "-n", "k8s.io", "images", "import", "-")
	cmd.Stdin = f
	if err := runCommand(c.Machine(node), cmd); err != nil {
		return fmt.Errorf("import %s: %w", filepath.Base(archive), err)
	}
	return nil
}

func run(m *machine.Machine, args ...string) error {
	return runCommand(m, exec.Command(args[0], args[1:]...))
}

func runCommand(m *machine.Machine, cmd *exec.Cmd) error {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := m.Run(cmd); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}

func (c *Cluster) waitRegistered(ctx context.Context, node string) error {
	m := c.Machine(node)
	return whileRunning(ctx, m, func(ctx context.Context) error {
		var n corev1.Node
		return c.Client.Get(ctx, types.NamespacedName{Name: node}, &n)
	}, kubeletService, proxyService)
}
