// Package kubelet is the lab's node runner: what a kubelet does with the pods
// bound to its node, without images and cgroups. It registers the Node, makes
// each pod's sandbox, calls the CNI plugins through libcni, runs the pod's
// processes in it and reports status. It runs inside the node's machine, under
// the real paths: /etc/cni/net.d, /opt/cni/bin, /etc/kubernetes/manifests.
//
//	API server (pods of this node) ──┐
//	                                 ├─ Runner ── one worker a pod ── sandbox
//	manifests directory ─────────────┘                 └── status, events ──▶ API server
//
// Pods outlive the runner: each worker writes a record before it acts, and a
// new runner adopts what it finds. Nothing here needs the API server to answer,
// except to hear of new pods that are not manifests.
package kubelet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/record"
)

// Config is what a runner needs to know.
type Config struct {
	// Node is the node's name, Labels its labels beyond the usual.
	Node   string
	Labels map[string]string
	// Addresses are the node's internal addresses, IPv4 first.
	Addresses []netip.Addr
	// Kubeconfig is the path of the credentials.
	Kubeconfig string
	// PodMain is the command that serves for a container without one of its own.
	PodMain []string
	Log     *slog.Logger
}

// Where the runner looks and keeps its records, as seen in the machine.
const (
	cniConfDir   = "/etc/cni/net.d"
	cniBinDir    = "/opt/cni/bin"
	cniCacheDir  = "/var/lib/cni"
	ManifestsDir = "/etc/kubernetes/manifests"
	recordsDir   = "/var/lib/kubelet/pods"
)

// Runner is a node runner. Run is its life.
type Runner struct {
	Config
	client kubernetes.Interface
	events record.EventRecorder

	// updates carries every change of a pod to the one goroutine that owns workers.
	updates chan update
	outbox  outbox
	finish  chan *worker
	workers map[types.UID]*worker
}

// update is what a source says about a pod. A nil Pod with a UID means that the
// source has it no more.
type update struct {
	uid types.UID
	pod *corev1.Pod
	// synced is set, and nothing else, once the API server's list is complete.
	synced bool
}

// New makes a runner. It does not talk to the API server yet.
func New(c Config) (*Runner, error) {
	rest, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	rest.QPS = -1
	client, err := kubernetes.NewForConfig(rest)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	return &Runner{
		Config: c, client: client,
		updates: make(chan update),
		outbox:  outbox{pending: map[types.UID]report{}, wake: make(chan struct{}, 1)},
		finish:  make(chan *worker),
		workers: map[types.UID]*worker{},
	}, nil
}

// Run adopts what an earlier runner left and works until ctx ends. Pods keep
// running then.
func (r *Runner) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	stopEvents := r.startEvents()
	defer stopEvents()
	records, err := Records("/")
	if err != nil {
		return err
	}
	for _, rec := range records {
		r.Log.Info("adopted", "pod", rec.Pod.Namespace+"/"+rec.Pod.Name)
		r.startWorker(ctx, g, rec.Pod, &rec)
	}
	g.Go(func() error { return r.registerNode(ctx) })
	g.Go(func() error { return r.watchPods(ctx) })
	g.Go(func() error { return r.watchManifests(ctx) })
	g.Go(func() error { return r.sendReports(ctx) })
	g.Go(func() error { return r.dispatch(ctx, g) })
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// dispatch owns the map of workers.
func (r *Runner) dispatch(ctx context.Context, g *errgroup.Group) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case w := <-r.finish:
			delete(r.workers, w.uid)
		case u := <-r.updates:
			r.take(ctx, g, u)
		}
	}
}

func (r *Runner) take(ctx context.Context, g *errgroup.Group, u update) {
	if u.synced {
		// What was adopted and is in no list any more was deleted while no runner ran.
		for _, w := range r.workers {
			if !w.known && !w.manifest {
				w.tell(nil)
			}
		}
		return
	}
	w := r.workers[u.uid]
	switch {
	case w != nil:
		w.known = true
		w.tell(u.pod)
	case u.pod == nil:
	case u.pod.DeletionTimestamp != nil:
		r.outbox.put(report{pod: u.pod, gone: true}) // deleted before it was ever started here
	case u.pod.Status.Phase == corev1.PodSucceeded || u.pod.Status.Phase == corev1.PodFailed:
	default:
		w = r.startWorker(ctx, g, u.pod, nil)
		w.known = true
	}
}

func (r *Runner) startWorker(ctx context.Context, g *errgroup.Group, pod *corev1.Pod, rec *Record) *worker {
	w := newWorker(r, pod, rec)
	r.workers[pod.UID] = w
	g.Go(func() error {
		w.run(ctx)
		if ctx.Err() == nil {
			select {
			case r.finish <- w:
			case <-ctx.Done():
			}
		}
		return nil
	})
	return w
}

// send passes an update on unless the runner ends.
func (r *Runner) send(ctx context.Context, u update) {
	select {
	case r.updates <- u:
	case <-ctx.Done():
	}
}

// backoff is the wait before attempt n (from 1) of something that failed.
func backoff(n int) time.Duration {
	return min(100*time.Millisecond<<min(n-1, 8), 10*time.Second)
}
