package measure

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/koratnet/korat/e2e/cluster"
)

// pool is where pods of both networks have their addresses.
var pool = netip.MustParsePrefix("10.244.0.0/16")

// Install makes the cluster of o twice, each time with a pod that waits for a
// network, and prints how long that pod waits after the network is there: the
// reference plugin ptp, whose configuration a node gets in one step, and Korat,
// installed by Helm from the image with this tag. It leaves nothing behind.
func Install(ctx context.Context, o cluster.Options, tag string, out io.Writer) error {
	reference, err := firstPod(ctx, o, installReference)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "ptp installed to the first pod Ready: %s\n", reference.Round(time.Second/10))
	korat, err := firstPod(ctx, o, func(ctx context.Context, c *cluster.Cluster) error { return installByHelm(ctx, c, o.Bin, tag) })
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "helm install to the first pod Ready: %s, %s more\n", korat.Round(time.Second/10), (korat - reference).Round(time.Second/10))
	return nil
}

// firstPod returns how long after the beginning of install a pod is Ready.
func firstPod(ctx context.Context, o cluster.Options, install func(context.Context, *cluster.Cluster) error) (_ time.Duration, err error) {
	c, err := cluster.Up(ctx, o)
	defer func() { err = errors.Join(err, cluster.Down(context.WithoutCancel(ctx), o)) }()
	if err != nil {
		return 0, err
	}
	r := &run{Cluster: c}
	if err := c.Client.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}); err != nil {
		return 0, err
	}
	pod := r.pod("first", c.Topology.Nodes()[0].Name, nil)
	pod.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	if _, err := r.create(ctx, pod); err != nil {
		return 0, err
	}
	start := time.Now()
	if err := install(ctx, c); err != nil {
		return 0, err
	}
	err = r.ready(ctx, pod)
	return time.Since(start), err
}

// installReference gives every node what it takes to give pods addresses.
func installReference(_ context.Context, c *cluster.Cluster) error {
	for i, n := range c.Topology.Nodes() {
		subnet := netip.PrefixFrom(nth(pool.Addr(), i), 24)
		plugin := fmt.Sprintf(`{"type": "ptp", "ipMasq": true, "ipam": %s}`, hostLocal(subnet, `, "routes": [{"dst": "0.0.0.0/0"}]`))
		if err := configure(c, n.Name, "10-ptp.conflist", plugin); err != nil {
			return err
		}
	}
	return nil
}

// nth is the address of the nth network of 256 after a.
func nth(a netip.Addr, n int) netip.Addr {
	b := a.As4()
	b[2] += byte(n)
	return netip.AddrFrom4(b)
}

// hostLocal says that addresses come from the subnet; more is what else it says.
func hostLocal(subnet netip.Prefix, more string) string {
	return fmt.Sprintf(`{"type": "host-local", "ranges": [[{"subnet": %q}]]%s}`, subnet, more)
}

// configure gives a node a network of these plugins.
func configure(c *cluster.Cluster, node, file string, plugins ...string) error {
	dir := c.Machine(node).Path("/etc/cni/net.d")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	text := fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "reference", "plugins": [%s]}`, strings.Join(plugins, ", "))
	path := filepath.Join(dir, file)
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path) // the runtime reads it as soon as it is there
}

func installByHelm(ctx context.Context, c *cluster.Cluster, bin, tag string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "helm"), "install", "korat", "charts/korat", "--namespace", "kube-system",
		"--kubeconfig", c.Kubeconfig(), "--set", "image.tag="+tag, "--set", fmt.Sprintf("defaultPools={%s}", pool))
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("helm install: %w: %s", err, text)
	}
	return nil
}
