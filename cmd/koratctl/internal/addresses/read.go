package addresses

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/felix/cniserver/audit"
	"github.com/koratnet/korat/felix/kube"
)

// page is how many objects are asked for at once.
const page = "500"

// agentWait bounds how long one agent is waited for.
const agentWait = 10 * time.Second

// Read reads the books from the API server, and asks agents: each as the address
// of its HTTP port, as in http://127.0.0.1:9099, or a file with what it answered.
func Read(ctx context.Context, c *kube.Clients, agents []string) (*Books, error) {
	b := &Books{Nodes: map[string]string{}}
	for resource, add := range map[string]func(runtime.Object){
		"ippools": func(o runtime.Object) { b.Pools = append(b.Pools, o.(*koratv1.IPPoolList).Items...) },
		"ipreservations": func(o runtime.Object) {
			b.Reservations = append(b.Reservations, o.(*koratv1.IPReservationList).Items...)
		},
		"blocks": func(o runtime.Object) { b.Blocks = append(b.Blocks, o.(*koratv1.BlockList).Items...) },
	} {
		fresh := map[string]func() runtime.Object{
			"ippools":        func() runtime.Object { return &koratv1.IPPoolList{} },
			"ipreservations": func() runtime.Object { return &koratv1.IPReservationList{} },
			"blocks":         func() runtime.Object { return &koratv1.BlockList{} },
		}[resource]
		if err := list(ctx, c.Korat, resource, fresh, add); err != nil {
			return nil, err
		}
	}
	err := list(ctx, c.Core, "pods", func() runtime.Object { return &corev1.PodList{} }, func(o runtime.Object) {
		b.Pods = append(b.Pods, o.(*corev1.PodList).Items...)
	})
	if err != nil {
		return nil, err
	}
	err = list(ctx, c.Core, "nodes", func() runtime.Object { return &corev1.NodeList{} }, func(o runtime.Object) {
		for _, n := range o.(*corev1.NodeList).Items {
			b.Nodes[n.Name] = string(n.UID)
		}
	})
	if err != nil {
		return nil, err
	}
	for _, a := range agents {
		n, err := ask(ctx, a)
		if err != nil {
			return nil, fmt.Errorf("agent %s: %w", a, err)
		}
		b.Agents = append(b.Agents, n)
	}
	return b, nil
}

// list reads all objects of a resource, page by page.
func list(ctx context.Context, c rest.Interface, resource string, fresh func() runtime.Object, add func(runtime.Object)) error {
	for next := ""; ; {
		o := fresh()
		if err := c.Get().Resource(resource).Param("limit", page).Param("continue", next).Do(ctx).Into(o); err != nil {
			return fmt.Errorf("list %s: %w", resource, err)
		}
		add(o)
		if next = o.(metav1.ListInterface).GetContinue(); next == "" {
			return nil
		}
	}
}

// ask reads what an agent says.
func ask(ctx context.Context, from string) (audit.Node, error) {
	var n audit.Node
	if !strings.HasPrefix(from, "http://") {
		data, err := os.ReadFile(from)
		if err != nil {
			return n, err
		}
		return n, json.Unmarshal(data, &n)
	}
	ctx, cancel := context.WithTimeout(ctx, agentWait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(from, "/")+audit.Path, nil)
	if err != nil {
		return n, err
	}
	reply, err := http.DefaultClient.Do(req)
	if err != nil {
		return n, err
	}
	defer reply.Body.Close()
	if reply.StatusCode != http.StatusOK {
		return n, fmt.Errorf("%s answers %s", req.URL, reply.Status)
	}
	return n, json.NewDecoder(reply.Body).Decode(&n)
}
