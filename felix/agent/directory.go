package agent

import (
	"context"
	"sync"
	"time"

	"github.com/koratnet/korat/felix/annotation"
	"github.com/koratnet/korat/felix/cniserver"
	"github.com/koratnet/korat/felix/event"
)

const (
	// lookupWait is how long the watch is waited for, which usually tells of a pod
	// before the kubelet has made its sandbox.
	lookupWait = 100 * time.Millisecond
	// lookupAsk bounds the one question to the API server that follows.
	lookupAsk = 2 * time.Second
)

// directory knows the annotations of the node's pods, and of namespaces.
type directory struct {
	// ask asks the API server for the annotations of a pod.
	ask func(ctx context.Context, namespace, pod string) (map[string]string, error)

	mu         sync.Mutex // guards all below
	pods       map[string]*event.Pod
	namespaces map[string]*event.Namespace
	news       chan struct{} // closed, and made anew, when a pod of the node comes
}

func newDirectory(ask func(ctx context.Context, namespace, pod string) (map[string]string, error)) *directory {
	return &directory{ask: ask, pods: map[string]*event.Pod{}, namespaces: map[string]*event.Namespace{}, news: make(chan struct{})}
}

func (d *directory) setNamespace(name string, n *event.Namespace) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.namespaces[name] = n
	if n == nil {
		delete(d.namespaces, name)
	}
}

// setPod notes a pod; nil, or one of another node than node: there is none here.
func (d *directory) setPod(name string, p *event.Pod, node string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p == nil || p.Node != node {
		delete(d.pods, name)
		return
	}
	d.pods[name] = p
	close(d.news)
	d.news = make(chan struct{})
}

// Lookup returns what is known of a pod. One that the watch does not tell of in
// time is asked for once; a pod that nobody knows then is not Known. An earlier
// pod of the name, as a StatefulSet has them, may have had other annotations.
func (d *directory) Lookup(ctx context.Context, namespace, pod string, uid event.UID) cniserver.Listing {
	wait := time.NewTimer(lookupWait)
	defer wait.Stop()
	for waiting := true; waiting; {
		l, news := d.look(namespace, pod, uid)
		if l.PodKnown {
			return l
		}
		select {
		case <-news:
		case <-wait.C:
			waiting = false
		case <-ctx.Done():
			return l
		}
	}
	ctx, cancel := context.WithTimeout(ctx, lookupAsk)
	defer cancel()
	asked, err := d.ask(ctx, namespace, pod)
	l, _ := d.look(namespace, pod, uid)
	if !l.PodKnown && err == nil {
		l.Pod, l.PodKnown = annotation.Ours(asked), true
	}
	return l
}

func (d *directory) look(namespace, pod string, uid event.UID) (cniserver.Listing, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var l cniserver.Listing
	if p := d.pods[namespace+"/"+pod]; p != nil && p.UID.May(uid) {
		l.Pod, l.PodKnown = p.Annotations, true
	}
	if n := d.namespaces[namespace]; n != nil {
		l.Namespace, l.Labels, l.NamespaceKnown = n.Annotations, n.Labels, true
	}
	return l, d.news
}
