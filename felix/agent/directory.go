package agent

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/koratnet/korat/felix/annotation"
	"github.com/koratnet/korat/felix/cniserver"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/felix/floating"
	"github.com/koratnet/korat/policy/selector"
)

const (
	// lookupWait is how long the watch is waited for, which usually tells of a pod
	// before the kubelet has made its sandbox.
	lookupWait = 100 * time.Millisecond
	// lookupAsk bounds the questions to the API server that follow.
	lookupAsk = 2 * time.Second
)

// asked is the API server, for what its watch has not told of; kube.Clients
// implements it.
type asked interface {
	PodAnnotations(ctx context.Context, namespace, pod string) (map[string]string, error)
	Namespace(ctx context.Context, name string) (labels, annotations map[string]string, err error)
}

// directory knows the annotations of the node's pods, namespaces, and to whom
// floating addresses lead.
type directory struct {
	api  asked
	node string // that it is of

	mu         sync.Mutex // guards all below
	pods       map[string]*event.Pod
	namespaces map[string]*event.Namespace
	nodes      map[string]selector.Labels
	floats     *floating.Book
	news       chan struct{} // closed, and made anew, when a pod of the node or a namespace comes
}

func newDirectory(api asked, node string) *directory {
	return &directory{
		api: api, node: node, pods: map[string]*event.Pod{}, namespaces: map[string]*event.Namespace{}, nodes: map[string]selector.Labels{},
		floats: floating.New(), news: make(chan struct{}),
	}
}

// setNode notes the labels of a node; nil: it is gone.
func (d *directory) setNode(name string, n *event.Node) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if delete(d.nodes, name); n != nil {
		d.nodes[name] = n.Labels
	}
}

// setPool notes a pool; nil: it is gone.
func (d *directory) setPool(name string, p *event.Pool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.floats.SetPool(name, p)
}

// Floating implements cniserver.Directory.
func (d *directory) Floating(namespace, pod string, addrs []netip.Addr) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for _, a := range addrs {
		errs = append(errs, d.floats.Refusal(a, namespace, pod, d.node, world{d}))
	}
	return errors.Join(errs...)
}

// world is what a directory knows of labels, for who holds its lock.
type world struct{ *directory }

func (w world) NamespaceLabels(name string) (selector.Labels, bool) {
	if n := w.namespaces[name]; n != nil {
		return n.Labels, true
	}
	return nil, false
}

func (w world) NodeLabels(name string) (selector.Labels, bool) {
	labels, known := w.nodes[name]
	return labels, known
}

func (d *directory) setNamespace(name string, n *event.Namespace) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n == nil {
		delete(d.namespaces, name)
		return
	}
	d.namespaces[name] = n
	d.tell()
}

// tell wakes who waits for news. The caller holds mu.
func (d *directory) tell() {
	close(d.news)
	d.news = make(chan struct{})
}

// setPod notes a pod; nil: there is none. Of another node's, only what it asks for
// that it could take from a pod here.
func (d *directory) setPod(name string, p *event.Pod) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.floats.SetPod(name, p)
	if p == nil || p.Node != d.node {
		delete(d.pods, name)
		return
	}
	d.pods[name] = p
	d.tell()
}

// Lookup returns what is known of a pod and its namespace. What the watch does not
// tell of in time is asked for once; what nobody knows then is not Known. The watch
// of an agent that has just started may know the one and not yet the other. An
// earlier pod of the name, as a StatefulSet has them, may have had other annotations.
func (d *directory) Lookup(ctx context.Context, namespace, pod string, uid event.UID) cniserver.Listing {
	wait := time.NewTimer(lookupWait)
	defer wait.Stop()
	for waiting := true; waiting; {
		l, news := d.look(namespace, pod, uid)
		if l.PodKnown && l.NamespaceKnown {
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
	return d.ask(ctx, namespace, pod, uid)
}

// ask asks the API server for what is not known. What the watch tells meanwhile is
// newer than the answer.
func (d *directory) ask(ctx context.Context, namespace, pod string, uid event.UID) cniserver.Listing {
	ctx, cancel := context.WithTimeout(ctx, lookupAsk)
	defer cancel()
	var told cniserver.Listing
	l, _ := d.look(namespace, pod, uid)
	if !l.PodKnown {
		if all, err := d.api.PodAnnotations(ctx, namespace, pod); err == nil {
			told.Pod, told.PodKnown = annotation.Ours(all), true
		}
	}
	if !l.NamespaceKnown {
		if labels, all, err := d.api.Namespace(ctx, namespace); err == nil {
			told.Labels, told.Namespace, told.NamespaceKnown = selector.MakeLabels(labels), annotation.Ours(all), true
		}
	}
	l, _ = d.look(namespace, pod, uid)
	if !l.PodKnown {
		l.Pod, l.PodKnown = told.Pod, told.PodKnown
	}
	if !l.NamespaceKnown {
		l.Labels, l.Namespace, l.NamespaceKnown = told.Labels, told.Namespace, told.NamespaceKnown
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
