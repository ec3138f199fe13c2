package kubelet

import (
	"context"
	"encoding/json"
	"errors"
	"runtime"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// heartbeat is how often the Lease and the Node's status are renewed; the
	// cluster gives a node up after 40 seconds without.
	heartbeat = 5 * time.Second
	// hurry is the rhythm until the node is registered and its network is there.
	hurry = 200 * time.Millisecond
)

// registerNode makes the Node and keeps it alive.
func (r *Runner) registerNode(ctx context.Context) error {
	registered, told := false, ""
	for {
		err := r.beat(ctx, registered)
		if err == nil && !registered {
			r.Log.Info("node registered")
			registered = true
		}
		if err != nil && ctx.Err() == nil && err.Error() != told {
			told = err.Error()
			r.Log.Warn("node is not kept alive", "error", err)
		}
		registered = registered && !apierrors.IsNotFound(err) // somebody deleted the Node: make it again
		wait := heartbeat
		if _, noNetwork := network(); err != nil || noNetwork != nil {
			wait = hurry
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

func (r *Runner) beat(ctx context.Context, registered bool) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if !registered {
		if err := r.createNode(ctx); err != nil {
			return err
		}
	}
	patch, err := statusPatch(r.nodeStatus())
	if err != nil {
		return err
	}
	_, err = r.client.CoreV1().Nodes().Patch(ctx, r.Node, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	return errors.Join(err, r.renewLease(ctx))
}

// statusPatch makes the strategic merge patch that sets s. Addresses are merged by
// their type, which fails as soon as a node has one of each family, so they are
// replaced whole.
func statusPatch(s corev1.NodeStatus) ([]byte, error) {
	addresses := []any{map[string]string{"$patch": "replace"}}
	for _, a := range s.Addresses {
		addresses = append(addresses, a)
	}
	s.Addresses = nil
	text, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	status := map[string]any{}
	if err := json.Unmarshal(text, &status); err != nil {
		return nil, err
	}
	status["addresses"] = addresses
	return json.Marshal(map[string]any{"status": status})
}

func (r *Runner) createNode(ctx context.Context) error {
	labels := map[string]string{
		corev1.LabelHostname: r.Node, corev1.LabelOSStable: runtime.GOOS, corev1.LabelArchStable: runtime.GOARCH,
	}
	for k, v := range r.Labels {
		labels[k] = v
	}
	nodes := r.client.CoreV1().Nodes()
	_, err := nodes.Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: r.Node, Labels: labels}}, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": labels}})
	if err != nil {
		return err
	}
	_, err = nodes.Patch(ctx, r.Node, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	return err
}

func (r *Runner) nodeStatus() corev1.NodeStatus {
	resources := corev1.ResourceList{
		corev1.ResourcePods:   resource.MustParse("250"),
		corev1.ResourceCPU:    resource.MustParse("64"),
		corev1.ResourceMemory: resource.MustParse("64Gi"),
	}
	s := corev1.NodeStatus{
		Capacity: resources, Allocatable: resources,
		Addresses: []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: r.Node}},
		NodeInfo: corev1.NodeSystemInfo{
			KubeletVersion: "v0.0.0-lab", ContainerRuntimeVersion: "lab://0", OperatingSystem: runtime.GOOS, Architecture: runtime.GOARCH,
		},
	}
	for _, a := range r.Addresses {
		s.Addresses = append(s.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a.String()})
	}
	now := metav1.Now()
	ready := corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady", LastHeartbeatTime: now}
	if _, err := network(); err != nil {
		ready.Status, ready.Reason, ready.Message = corev1.ConditionFalse, "KubeletNotReady", "network is not ready: "+err.Error()
	}
	s.Conditions = append(s.Conditions, ready)
	for _, t := range []corev1.NodeConditionType{corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure} {
		s.Conditions = append(s.Conditions, corev1.NodeCondition{Type: t, Status: corev1.ConditionFalse, Reason: "Lab", LastHeartbeatTime: now})
	}
	return s
}

func (r *Runner) renewLease(ctx context.Context) error {
	leases := r.client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	now, seconds := metav1.NowMicro(), int32(40)
	spec := coordinationv1.LeaseSpec{HolderIdentity: &r.Node, LeaseDurationSeconds: &seconds, RenewTime: &now}
	patch, err := json.Marshal(map[string]any{"spec": spec})
	if err != nil {
		return err
	}
	_, err = leases.Patch(ctx, r.Node, types.MergePatchType, patch, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		_, err = leases.Create(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: r.Node}, Spec: spec}, metav1.CreateOptions{})
	}
	return err
}
