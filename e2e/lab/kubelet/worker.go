package kubelet

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// worker looks after one pod from its first sight to its end.
type worker struct {
	r   *Runner
	uid types.UID
	// manifest is set for a pod that no API server knows but by its mirror.
	manifest bool
	rec      Record // owned by run
	// pods holds the pod's latest version; nil in it means: no longer wanted.
	pods chan *corev1.Pod
	// exits gets a container's name when its process has ended.
	exits chan string
	// known is set once a source has named the pod. Owned by dispatch.
	known bool

	failures int // of the sandbox, in a row
	procs    map[string]*process
	restarts map[string]int32
}

func newWorker(r *Runner, pod *corev1.Pod, rec *Record) *worker {
	w := &worker{
		r: r, uid: pod.UID, manifest: isManifest(pod), rec: Record{Pod: pod}, pods: make(chan *corev1.Pod, 1), exits: make(chan string, 16),
		procs: map[string]*process{}, restarts: map[string]int32{},
	}
	if rec != nil {
		w.rec = *rec
	}
	return w
}

// tell gives the worker a newer version, in place of one it has not read yet.
// Only dispatch calls it.
func (w *worker) tell(pod *corev1.Pod) {
	select {
	case <-w.pods:
	default:
	}
	w.pods <- pod
}

// run works until the pod is gone or ctx ends.
func (w *worker) run(ctx context.Context) {
	w.adopt()
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case pod := <-w.pods:
			if pod == nil || pod.DeletionTimestamp != nil {
				w.end(ctx, pod)
				return
			}
			w.rec.Pod = pod
			continue // a running pod's spec does not change
		case name := <-w.exits:
			w.restarts[name]++
			delete(w.procs, name)
			retry.Reset(backoff(int(w.restarts[name])))
			w.reportStatus("")
			continue
		case <-retry.C:
		}
		if err := w.advance(ctx); err != nil && ctx.Err() == nil {
			w.failures++
			w.r.Log.Warn("pod does not start", "pod", w.name(), "failures", w.failures, "error", err)
			w.r.events.Event(w.rec.Pod, corev1.EventTypeWarning, "FailedCreatePodSandBox", err.Error())
			w.reportStatus(err.Error())
			retry.Reset(backoff(w.failures))
		}
	}
}

// advance does what is left to do until the pod runs.
func (w *worker) advance(ctx context.Context) error {
	if !w.rec.Ready {
		if w.failures == 0 {
			w.reportStatus("")
		}
		if err := w.createSandbox(ctx); err != nil {
			return err
		}
		w.failures = 0
	}
	var errs []error
	for i := range w.rec.Pod.Spec.Containers {
		c := &w.rec.Pod.Spec.Containers[i]
		if w.procs[c.Name] != nil {
			continue
		}
		if err := w.startContainer(ctx, c); err != nil {
			errs = append(errs, fmt.Errorf("container %s: %w", c.Name, err))
		}
	}
	errs = append(errs, w.save())
	w.reportStatus("")
	return errors.Join(errs...)
}

// end stops the pod, frees its address and tells the API server that it is
// gone. It goes on trying, because a CNI DEL that is given up leaks.
func (w *worker) end(ctx context.Context, pod *corev1.Pod) {
	if pod != nil {
		w.rec.Pod = pod
	}
	w.stopContainers(ctx)
	for n := 1; ; n++ {
		err := w.removeSandbox(ctx)
		if err == nil {
			break
		}
		w.r.Log.Warn("pod does not end", "pod", w.name(), "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(backoff(n)):
		}
	}
	w.r.outbox.put(report{pod: w.rec.Pod, gone: true})
	w.r.Log.Info("pod ended", "pod", w.name())
}

func (w *worker) name() string { return w.rec.Pod.Namespace + "/" + w.rec.Pod.Name }

// reportStatus tells the API server how the pod is doing. A problem is why it
// cannot start.
func (w *worker) reportStatus(problem string) {
	pod := w.rec.Pod
	s := corev1.PodStatus{
		Phase: corev1.PodPending, StartTime: &metav1.Time{Time: w.rec.Started},
		HostIP: w.r.Addresses[0].String(), QOSClass: corev1.PodQOSBestEffort,
	}
	for _, a := range w.r.Addresses {
		s.HostIPs = append(s.HostIPs, corev1.HostIP{IP: a.String()})
	}
	for _, a := range w.rec.Addresses {
		s.PodIPs = append(s.PodIPs, corev1.PodIP{IP: a.String()})
	}
	if len(s.PodIPs) > 0 {
		s.PodIP = s.PodIPs[0].IP
	}
	ready := w.rec.Ready
	for _, c := range pod.Spec.Containers {
		cs := w.containerStatus(c, problem)
		ready = ready && cs.Ready
		s.ContainerStatuses = append(s.ContainerStatuses, cs)
	}
	if w.rec.Ready {
		s.Phase = corev1.PodRunning
	}
	s.Conditions = []corev1.PodCondition{
		condition(corev1.PodScheduled, true, ""),
		condition(corev1.PodInitialized, true, ""),
		condition("PodReadyToStartContainers", w.rec.Ready, problem),
		condition(corev1.ContainersReady, ready, problem),
		condition(corev1.PodReady, ready, problem),
	}
	w.r.outbox.put(report{pod: pod, status: &s})
}

func (w *worker) containerStatus(c corev1.Container, problem string) corev1.ContainerStatus {
	p := w.procs[c.Name]
	started := p != nil
	s := corev1.ContainerStatus{
		Name: c.Name, Image: c.Image, ImageID: "lab", Started: &started, Ready: started, RestartCount: w.restarts[c.Name],
	}
	if p == nil {
		s.State.Waiting = &corev1.ContainerStateWaiting{Reason: "ContainerCreating", Message: problem}
		return s
	}
	s.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.Time{Time: p.Started}}
	s.ContainerID = fmt.Sprintf("lab://%s/%s", w.rec.ID, c.Name)
	return s
}

func condition(kind corev1.PodConditionType, is bool, message string) corev1.PodCondition {
	c := corev1.PodCondition{Type: kind, Status: corev1.ConditionFalse, Message: message, LastTransitionTime: metav1.Now()}
	if is {
		c.Status, c.Message = corev1.ConditionTrue, ""
	}
	return c
}
