package drops

import (
	"context"
	"io"
	"net/netip"

	"k8s.io/client-go/rest"

	"github.com/koratnet/korat/cmd/koratctl/internal/agents"
	"github.com/koratnet/korat/felix/ask"
	"github.com/koratnet/korat/felix/flow/wire"
)

// Cluster asks agents through the API server.
type Cluster struct{ *agents.Cluster }

// NewCluster returns a Cluster of these credentials.
func NewCluster(cfg *rest.Config, namespace, selector string) (*Cluster, error) {
	c, err := agents.New(cfg, namespace, selector)
	if err != nil {
		return nil, err
	}
	return &Cluster{c}, nil
}

// Names learns the names of all pods with an address of their own, and returns
// the addresses of each as well.
func (c *Cluster) Names(ctx context.Context) (Names, map[string][]netip.Addr, error) {
	all, err := c.Pods(ctx, "/api/v1/pods", nil)
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
	turn := make(chan struct{}, 1)
	return c.Run(ctx, node, q.Follow, command(q), func(answer io.Reader) error {
		return ask.Read(answer, func(l wire.Line) error {
			turn <- struct{}{}
			defer func() { <-turn }()
			return visit(l)
		})
	})
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
