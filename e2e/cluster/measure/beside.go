package measure

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/koratnet/korat/e2e/lab"
)

// The network of reference plugins that one node has for a while.
const (
	otherFile   = "00-reference.conflist" // the runtime takes the first
	otherBridge = "reference0"
)

var otherPool = netip.MustParsePrefix("10.77.0.0/24")

// beside compares Korat's pods on one node with pods on another that has the
// reference plugins bridge, host-local and portmap, as kube-router lets the runtime
// call them: what it does itself for a pod comes after that. Pods of both nodes come
// in turns, since the machine's load is a part of each time.
func (r *run) beside(ctx context.Context, node, other string) error {
	bridge := fmt.Sprintf(`{"type": "bridge", "bridge": %q, "isDefaultGateway": true, "ipMasq": true, "ipam": %s}`, otherBridge, hostLocal(otherPool, ""))
	portmap := `{"type": "portmap", "capabilities": {"portMappings": true}}`
	if err := configure(r.Cluster, other, otherFile, bridge, portmap); err != nil {
		return err
	}
	err := r.inTurns(ctx, node, other)
	return errors.Join(err, r.restore(context.WithoutCancel(ctx), other))
}

func (r *run) inTurns(ctx context.Context, node, other string) error {
	if err := r.untilPodsComeFrom(ctx, other, otherPool.Contains); err != nil {
		return err
	}
	var ours, theirs []time.Duration
	for i := range 2 * r.Rounds {
		for _, turn := range []struct {
			node  string
			times *[]time.Duration
		}{{node, &ours}, {other, &theirs}} {
			d, err := r.startPod(ctx, fmt.Sprintf("beside-%s-%d", turn.node, i), turn.node, nil)
			if err != nil {
				return err
			}
			*turn.times = append(*turn.times, d)
		}
	}
	r.report("pod created to Ready", ours)
	r.report("pod created to Ready with bridge and portmap", theirs)
	return nil
}

// restore gives the node Korat's network again.
func (r *run) restore(ctx context.Context, node string) error {
	// While the runtime knows the network of the pods: it forgets it with the file.
	if err := r.deletePods(ctx, node); err != nil {
		return err
	}
	m := r.Machine(node)
	if err := os.Remove(m.Path("/etc/cni/net.d/" + otherFile)); err != nil {
		return err
	}
	if err := r.untilPodsComeFrom(ctx, node, func(a netip.Addr) bool { return !otherPool.Contains(a) }); err != nil {
		return err
	}
	return r.Exec(node, exec.CommandContext(ctx, "ip", "link", "delete", otherBridge))
}

// untilPodsComeFrom makes pods on the node until one has an address that is meant:
// the runtime notices soon, not at once, that it has another network.
func (r *run) untilPodsComeFrom(ctx context.Context, node string, meant func(netip.Addr) bool) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return lab.Eventually(ctx, func(ctx context.Context) error {
		p := r.pod("which-"+node, node, nil)
		if _, err := r.create(ctx, p); err != nil {
			return err
		}
		if err := r.ready(ctx, p); err != nil {
			return err
		}
		a, err := netip.ParseAddr(p.Status.PodIP)
		if err == nil && !meant(a) {
			err = fmt.Errorf("pod %s has the address %s", p.Name, a)
		}
		return errors.Join(err, r.deletePods(ctx, node))
	})
}

// deletePods deletes the node's pods and waits until it is done with them.
func (r *run) deletePods(ctx context.Context, node string) error {
	where := client.ListOptions{Namespace: namespace, FieldSelector: fields.OneTermEqualSelector("spec.nodeName", node)}
	// Not at once, or the object would be gone before the pod.
	err := r.Client.DeleteAllOf(ctx, &corev1.Pod{}, &client.DeleteAllOfOptions{ListOptions: where}, client.GracePeriodSeconds(1))
	if err != nil {
		return err
	}
	return lab.Eventually(ctx, func(ctx context.Context) error {
		var left corev1.PodList
		if err := r.Client.List(ctx, &left, &where); err != nil {
			return err
		}
		if n := len(left.Items); n > 0 {
			return fmt.Errorf("%d pods of %s are still there", n, node)
		}
		return nil
	})
}
