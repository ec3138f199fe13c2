// Package agents asks Korat's agents something through the API server: by running
// a command inside of their pods.
package agents

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"

	"golang.org/x/sync/errgroup"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/koratnet/korat/cmd/koratctl/internal/live"
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

// New returns a Cluster of these credentials.
func New(cfg *rest.Config, namespace, selector string) (*Cluster, error) {
	client, err := live.Client(cfg)
	if err != nil {
		return nil, err
	}
	return &Cluster{client, cfg, namespace, selector}, nil
}

// Pod is what there is to know of one.
type Pod struct {
	Metadata struct{ Name, Namespace string }
	Spec     struct {
		NodeName    string
		HostNetwork bool
	}
	Status struct{ PodIPs []struct{ IP netip.Addr } }
}

// Pods lists those that the parameters choose.
func (c *Cluster) Pods(ctx context.Context, path string, params url.Values) ([]Pod, error) {
	var all []Pod
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
			Items    []Pod
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

// Run runs a command inside the agents of all nodes, or of one, and calls read with
// what each prints, of several agents at the same time. follows: the commands do not
// end by themselves. An agent that fails does not stop the others.
func (c *Cluster) Run(ctx context.Context, node string, follows bool, command []string, read func(io.Reader) error) error {
	params := url.Values{"labelSelector": {c.Selector}}
	if node != "" {
		params.Set("fieldSelector", "spec.nodeName="+node)
	}
	pods, err := c.Pods(ctx, "/api/v1/namespaces/"+c.Namespace+"/pods", params)
	if err != nil {
		return err
	}
	if len(pods) == 0 {
		return fmt.Errorf("there is no agent: no pod in namespace %s has the labels %s%s; on a node itself no API server is needed",
			c.Namespace, c.Selector, map[bool]string{true: " and runs on node " + node}[node != ""])
	}
	limit := atOnce
	if follows { // each takes as long as the others
		limit = len(pods)
	}
	errs := make([]error, len(pods))
	var g errgroup.Group
	g.SetLimit(limit)
	for i, agent := range pods {
		g.Go(func() error {
			if err := c.runIn(ctx, agent, command, read); err != nil && ctx.Err() == nil {
				errs[i] = fmt.Errorf("agent of node %s: %w", agent.Spec.NodeName, err)
			}
			return nil
		})
	}
	return errors.Join(g.Wait(), errors.Join(errs...))
}

// runIn runs a command inside an agent's pod.
func (c *Cluster) runIn(ctx context.Context, agent Pod, command []string, read func(io.Reader) error) error {
	request := c.client.Post().AbsPath("/api/v1/namespaces/"+agent.Metadata.Namespace+"/pods/"+agent.Metadata.Name+"/exec").
		Param("stdout", "true").Param("stderr", "true")
	for _, word := range command {
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
	err = read(in)
	return errors.Join(err, in.Close())
}

// limited keeps the beginning of what is written to it.
type limited []byte

func (l *limited) Write(b []byte) (int, error) {
	*l = append(*l, b[:min(len(b), 1000-len(*l))]...)
	return len(b), nil
}
