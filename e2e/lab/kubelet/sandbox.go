package kubelet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	corev1 "k8s.io/api/core/v1"

	"github.com/koratnet/korat/e2e/lab/machine"
)

func (w *worker) save() error {
	w.rec.Processes = map[string]process{}
	for name, p := range w.procs {
		w.rec.Processes[name] = *p
	}
	return w.rec.save()
}

// NetnsName is the name of the network namespace of a pod, inside its node.
func NetnsName(pod *corev1.Pod) string { return "pod-" + string(pod.UID) }

// createSandbox makes the pod's namespace and calls CNI ADD. After a failure it
// cleans up by DEL, as a kubelet does, and the next attempt is a new sandbox.
func (w *worker) createSandbox(ctx context.Context) error {
	if w.rec.ID != "" { // left by an earlier attempt, or by a runner that died in it
		if err := w.removeSandbox(ctx); err != nil {
			return err
		}
	}
	w.rec.ID = fmt.Sprintf("%s-%d", w.rec.Pod.UID, time.Now().UnixNano())
	if w.rec.Started.IsZero() {
		w.rec.Started = time.Now()
	}
	if err := w.save(); err != nil {
		return err
	}
	if w.rec.Pod.Spec.HostNetwork {
		w.rec.Addresses, w.rec.Ready = w.r.Addresses, true
		return w.save()
	}
	if err := machine.AddNetns(NetnsName(w.rec.Pod)); err != nil {
		return err
	}
	cni, list, rt, err := w.cni()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	raw, err := cni.AddNetworkList(ctx, list, rt)
	if err != nil {
		return fmt.Errorf("CNI ADD by %s: %w", list.Name, err)
	}
	result, err := types100.NewResultFromResult(raw)
	if err != nil {
		return fmt.Errorf("CNI result: %w", err)
	}
	w.rec.Addresses = nil
	for _, ip := range result.IPs {
		a, _ := netip.AddrFromSlice(ip.Address.IP)
		w.rec.Addresses = append(w.rec.Addresses, a.Unmap())
	}
	w.rec.Ready = true
	return w.save()
}

// removeSandbox calls CNI DEL and removes the namespace and the record. It is
// safe to repeat, whatever part is there.
func (w *worker) removeSandbox(ctx context.Context) error {
	if w.rec.ID != "" && !w.rec.Pod.Spec.HostNetwork {
		cni, list, rt, err := w.cni()
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
		defer cancel()
		if err := cni.DelNetworkList(ctx, list, rt); err != nil {
			return fmt.Errorf("CNI DEL by %s: %w", list.Name, err)
		}
		if err := machine.RemoveNetns(NetnsName(w.rec.Pod)); err != nil {
			return err
		}
	}
	w.rec.ID, w.rec.Ready, w.rec.Addresses = "", false, nil
	if err := os.Remove(recordFile(string(w.rec.Pod.UID))); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

var errNoNetwork = errors.New("no CNI configuration in " + cniConfDir)

// network is the CNI configuration that is first by name.
func network() (*libcni.NetworkConfigList, error) {
	files, err := libcni.ConfFiles(cniConfDir, []string{".conflist"})
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	if len(files) == 0 {
		return nil, errNoNetwork
	}
	return libcni.ConfListFromFile(slices.Min(files))
}

func (w *worker) cni() (*libcni.CNIConfig, *libcni.NetworkConfigList, *libcni.RuntimeConf, error) {
	list, err := network()
	if err != nil {
		return nil, nil, nil, err
	}
	pod := w.rec.Pod
	return libcni.NewCNIConfigWithCacheDir([]string{cniBinDir}, cniCacheDir, nil), list, &libcni.RuntimeConf{
		ContainerID: w.rec.ID,
		NetNS:       machine.NetnsPath(NetnsName(pod)),
		IfName:      "eth0",
		Args: [][2]string{
			{"IgnoreUnknown", "1"},
			{"K8S_POD_NAMESPACE", pod.Namespace},
			{"K8S_POD_NAME", pod.Name},
			{"K8S_POD_INFRA_CONTAINER_ID", w.rec.ID},
			{"K8S_POD_UID", string(pod.UID)},
		},
		CapabilityArgs: map[string]any{"portMappings": hostPorts(pod)},
	}, nil
}

// portMapping is what plugins with the capability portMappings get.
type portMapping struct {
	HostPort      int32  `json:"hostPort"`
	ContainerPort int32  `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP,omitempty"`
}

func hostPorts(pod *corev1.Pod) []portMapping {
	var all []portMapping
	for _, c := range pod.Spec.Containers {
		for _, p := range c.Ports {
			if p.HostPort != 0 {
				protocol := strings.ToLower(string(cmp.Or(p.Protocol, corev1.ProtocolTCP)))
				all = append(all, portMapping{p.HostPort, p.ContainerPort, protocol, p.HostIP})
			}
		}
	}
	return all
}

// ports are the container's ports as the pod's server takes them.
func ports(c *corev1.Container) []string {
	var out []string
	for _, p := range c.Ports {
		switch p.Protocol {
		case corev1.ProtocolUDP:
			out = append(out, fmt.Sprintf("udp/%d", p.ContainerPort))
		case corev1.ProtocolTCP, "": // a manifest has not seen the API server's defaults
			out = append(out, fmt.Sprintf("tcp/%d", p.ContainerPort))
		}
	}
	return out
}
