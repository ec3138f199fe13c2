package kubelet

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	typed "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
)

// report is what the API server shall know of a pod: its status, or that it is gone.
type report struct {
	pod    *corev1.Pod
	status *corev1.PodStatus
	gone   bool
}

// outbox keeps the last report of each pod until the API server has it.
type outbox struct {
	wake chan struct{}

	mu      sync.Mutex // guards pending
	pending map[types.UID]report
}

func (o *outbox) put(r report) {
	o.mu.Lock()
	o.pending[r.pod.UID] = r
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func (o *outbox) take() map[types.UID]report {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := o.pending
	o.pending = map[types.UID]report{}
	return all
}

// putBack keeps a report that could not be sent, unless there is a newer one.
func (o *outbox) putBack(r report) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, newer := o.pending[r.pod.UID]; !newer {
		o.pending[r.pod.UID] = r
	}
}

// reportRetry is how long a report waits after one that could not be sent.
const reportRetry = 500 * time.Millisecond

func (r *Runner) sendReports(ctx context.Context) error {
	for {
		var retry <-chan time.Time
		for _, rep := range r.outbox.take() {
			if err := r.sendReport(ctx, rep); err != nil {
				r.Log.Debug("report waits", "pod", rep.pod.Namespace+"/"+rep.pod.Name, "error", err)
				r.outbox.putBack(rep)
				retry = time.After(reportRetry)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.outbox.wake:
		case <-retry:
		}
	}
}

func (r *Runner) sendReport(ctx context.Context, rep report) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	pods := r.client.CoreV1().Pods(rep.pod.Namespace)
	uid := rep.pod.UID
	if isManifest(rep.pod) {
		mirror, err := ensureMirror(ctx, pods, rep)
		if err != nil || mirror == nil {
			return err
		}
		uid = mirror.UID
	}
	if rep.gone {
		now := int64(0)
		err := pods.Delete(ctx, rep.pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &now, Preconditions: &metav1.Preconditions{UID: &uid}})
		return settled(err)
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": uid}, "status": rep.status})
	if err != nil {
		return err
	}
	_, err = pods.Patch(ctx, rep.pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	return settled(err)
}

// settled forgives the errors which say that the pod meant is no more.
func settled(err error) error {
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// ensureMirror returns the object that shows a manifest's pod to the cluster,
// and makes it unless the pod is gone. It returns nil when there is none.
func ensureMirror(ctx context.Context, pods typed.PodInterface, rep report) (*corev1.Pod, error) {
	mirror, err := pods.Get(ctx, rep.pod.Name, metav1.GetOptions{})
	switch {
	case err == nil:
		return mirror, nil
	case !apierrors.IsNotFound(err):
		return nil, err
	case rep.gone:
		return nil, nil
	}
	mirror = rep.pod.DeepCopy()
	mirror.Annotations[corev1.MirrorPodAnnotationKey] = string(rep.pod.UID)
	mirror.UID, mirror.ResourceVersion = "", ""
	for i := range mirror.Spec.Containers { // the API server insists on one
		if mirror.Spec.Containers[i].Image == "" {
			mirror.Spec.Containers[i].Image = "lab"
		}
	}
	mirror, err = pods.Create(ctx, mirror, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("mirror pod: %w", err)
	}
	return mirror, nil
}

// startEvents makes the recorder and returns what ends it.
func (r *Runner) startEvents() (stop func()) {
	b := record.NewBroadcaster()
	b.StartRecordingToSink(&typed.EventSinkImpl{Interface: r.client.CoreV1().Events("")})
	r.events = b.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "kubelet", Host: r.Node})
	return b.Shutdown
}
