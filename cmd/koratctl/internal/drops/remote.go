package drops

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"

	"golang.org/x/sync/errgroup"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/koratnet/korat/felix/flow/wire"
)

// atOnce is how many agents are asked at the same time.
const atOnce = 16

// Cluster asks agents through the API server.
type Cluster struct {
	client rest.Interface
	config *rest.Config
	// Namespace and Selector find the agents' pods.
	Namespace, Selector string
}

// NewCluster returns a Cluster of these credentials.
func NewCluster(cfg *rest.Config, namespace, selector string) (*Cluster, error) {
	cfg = rest.CopyConfig(cfg)
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"}) // what errors are written in
	cfg.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	cfg.ContentType, cfg.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	client, err := rest.UnversionedRESTClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("client for the API server %s: %w", cfg.Host, err)
	}
	return &Cluster{client, cfg, namespace, selector}, nil
}

// pod is what there is to know of one.
type pod struct {
	Metadata struct{ Name, Namespace string }
	Spec     struct {
		NodeName    string
		HostNetwork bool
	}
	Status struct{ PodIPs []struct{ IP netip.Addr } }
}

// pods lists those that the parameters choose.
func (c *Cluster) pods(ctx context.Context, path string, params url.Values) ([]pod, error) {
	var all []pod
	for next := ""; ; {
		request := c.client.Get().AbsPath(path).Param("limit", "500").Param("continue", next)
		for name := range params {
			request.Param(name, params.Get(name))
		}
		raw, err := request.Do(ctx).Raw()
		if err != nil {
			return nil, fmt.Errorf("list pods: %w", err)
		}
		var page struct {
			Metadata struct{ Continue string }
			Items    []pod
		}
		if err := json.Unmarshal(raw, &page); err != nil {
			return nil, fmt.Errorf("list pods: %w", err)
		}
		all = append(all, page.Items...)
		if next = page.Metadata.Continue; next == "" {
			return all, nil
		}
	}
}

// Names learns the names of all pods with an address of their own, and returns
// the addresses of each as well.
func (c *Cluster) Names(ctx context.Context) (Names, map[string][]netip.Addr, error) {
	all, err := c.pods(ctx, "/api/v1/pods", nil)
	if err != nil {
		return nil, nil, err
	}
	names, addrs := map[netip.Addr]string{}, map[string][]netip.Addr{}
	for _, p := range all {
		if p.Spec.HostNetwork {
			continue
		}
		name := p.Metadata.Namespace + "/" + p.Metadata.Name
		addrs[name] = nil
		for _, ip := range p.Status.PodIPs {
			names[ip.IP], addrs[name] = name, append(addrs[name], ip.IP)
		}
	}
	return func(a netip.Addr) string { return names[a] }, addrs, nil
}

// Ask asks the agents of all nodes, or of one, and calls visit with what they say,
// never twice at the same time. An agent that fails does not stop the others.
func (c *Cluster) Ask(ctx context.Context, node string, q wire.Question, visit func(wire.Line) error) error {
	params := url.Values{"labelSelector": {c.Selector}}
	if node != "" {
		params.Set("fieldSelector", "spec.nodeName="+node)
	}
	agents, err := c.pods(ctx, "/api/v1/namespaces/"+c.Namespace+"/pods", params)
	if err != nil {
		return err
	}
	if len(agents) == 0 {
		return fmt.Errorf("there is no agent: no pod in namespace %s has the labels %s%s; on a node itself no API server is needed",
			c.Namespace, c.Selector, map[bool]string{true: " and runs on node " + node}[node != ""])
	}
	limit := atOnce
	if q.Follow { // each takes as long as the others
		limit = len(agents)
	}
	turn := make(chan struct{}, 1)
	errs := make([]error, len(agents))
	var g errgroup.Group
	g.SetLimit(limit)
	for i, agent := range agents {
		g.Go(func() error {
			err := c.askOne(ctx, agent, q, func(l wire.Line) error {
				turn <- struct{}{}
				defer func() { <-turn }()
				return visit(l)
			})
			if err != nil && ctx.Err() == nil {
				errs[i] = fmt.Errorf("agent of node %s: %w", agent.Spec.NodeName, err)
			}
			return nil
		})
	}
	return errors.Join(g.Wait(), errors.Join(errs...))
}

// askOne runs the question inside an agent's pod.
func (c *Cluster) askOne(ctx context.Context, agent pod, q wire.Question, visit func(wire.Line) error) error {
	request := c.client.Post().AbsPath("/api/v1/namespaces/"+agent.Metadata.Namespace+"/pods/"+agent.Metadata.Name+"/exec").
		Param("stdout", "true").Param("stderr", "true")
	for _, word := range command(q) {
		request.Param("command", word)
	}
	spdy, err := remotecommand.NewSPDYExecutor(c.config, "POST", request.URL())
	if err != nil {
		return err
	}
	socket, err := remotecommand.NewWebSocketExecutor(c.config, "GET", request.URL().String())
	if err != nil {
		return err
	}
	executor, err := remotecommand.NewFallbackExecutor(socket, spdy, httpstream.IsUpgradeFailure)
	if err != nil {
		return err
	}
	in, out := io.Pipe()
	var complaint limited
	go func() {
		err := executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: out, Stderr: &complaint})
		if err != nil && len(complaint) > 0 {
			err = fmt.Errorf("%w: %s", err, complaint)
		}
		out.CloseWithError(err) // nil: the end of the answer
	}()
	err = wire.Read(in, visit)
	return errors.Join(err, in.Close())
}

// command is the question as a command line.
func command(q wire.Question) []string {
	words := []string{"korat", "drops"}
	for _, p := range q.Pods {
		words = append(words, "--pod", p)
	}
	for _, a := range q.Addrs {
		words = append(words, "--addr", a.String())
	}
	if q.Follow {
		words = append(words, "--follow")
	}
	return words
}

// limited keeps the beginning of what is written to it.
type limited []byte

func (l *limited) Write(b []byte) (int, error) {
	*l = append(*l, b[:min(len(b), 1000-len(*l))]...)
	return len(b), nil
}
