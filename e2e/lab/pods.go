package lab

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/koratnet/korat/e2e/lab/kubelet"
	"github.com/koratnet/korat/e2e/lab/machine"
	"github.com/koratnet/korat/e2e/lab/whoami"
)

// Pod is a pod as its node knows it; the API server is not asked.
type Pod struct {
	Namespace, Name, Node string
	// UID tells it from a pod of the same name that is still on its way out.
	UID types.UID
	// Addresses are empty until the pod has its network.
	Addresses []netip.Addr
	netns     string // as its node sees it; empty for a pod in the node's own network
}

// Pods lists the pods of all nodes.
func (l *Lab) Pods() ([]Pod, error) {
	var out []Pod
	for _, n := range l.Topology.Nodes() {
		records, err := kubelet.Records(l.machines[n.Name].Path("/"))
		if err != nil {
			return nil, err
		}
		for _, r := range records {
			p := Pod{Namespace: r.Pod.Namespace, Name: r.Pod.Name, Node: n.Name, UID: r.Pod.UID, Addresses: r.Addresses}
			if !r.Pod.Spec.HostNetwork {
				p.netns = machine.NetnsPath(kubelet.NetnsName(r.Pod))
			}
			out = append(out, p)
		}
	}
	return out, nil
}

// Pod finds a pod by NAMESPACE/NAME, or by NAME in the namespace default.
func (l *Lab) Pod(name string) (Pod, error) {
	ns, n, ok := strings.Cut(name, "/")
	if !ok {
		ns, n = corev1.NamespaceDefault, name
	}
	pods, err := l.Pods()
	if err != nil {
		return Pod{}, err
	}
	for _, p := range pods {
		if p.Namespace == ns && p.Name == n {
			return p, nil
		}
	}
	return Pod{}, fmt.Errorf("there is no pod %s/%s on any node", ns, n)
}

// Exec runs cmd where target is: a machine by its name, or a pod as Pod finds it.
func (l *Lab) Exec(target string, cmd *exec.Cmd) error {
	m, netns, err := l.find(target)
	if err != nil {
		return err
	}
	return m.RunIn(cmd, netns)
}

// Ask asks the whoami server at addr from inside target, over "tcp" or "udp".
func (l *Lab) Ask(target, proto string, addr netip.AddrPort, wait time.Duration) (whoami.Reply, error) {
	m, netns, err := l.find(target)
	if err != nil {
		return whoami.Reply{}, err
	}
	path := machine.NetnsPath(m.Netns)
	if netns != "" {
		path = m.Path(netns)
	}
	var r whoami.Reply
	err = machine.InNetns(path, func() error {
		r, err = whoami.Ask(proto, addr, wait)
		return err
	})
	return r, err
}

func (l *Lab) find(target string) (m *machine.Machine, netns string, err error) {
	if m := l.machines[target]; m != nil {
		return m, "", nil
	}
	p, err := l.Pod(target)
	if err != nil {
		return nil, "", fmt.Errorf("there is no machine %q: %w", target, err)
	}
	return l.machines[p.Node], p.netns, nil
}
