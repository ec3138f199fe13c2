package controller

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/policy/selector"
)

const (
	// reflectEvery is how often the choice of reflectors is looked at.
	reflectEvery = 5 * time.Second
	// reflectAtOnce is how many nodes get another part in one look.
	reflectAtOnce = 200
)

// reflecting keeps the parts of nodes among automatic reflectors. One goroutine
// runs it, and only in the replica that leads.
type reflecting struct {
	cluster
	log *slog.Logger
}

func newReflecting(mgr manager.Manager, c Config) *reflecting {
	return &reflecting{cluster{Client: mgr.GetClient()}, c.Log}
}

// Start runs it until ctx ends.
func (r *reflecting) Start(ctx context.Context) error {
	return every(ctx, reflectEvery, r.look, func(err error) { r.log.Warn("reflectors are not chosen", "error", err) })
}

// look compares what nodes are with what they should be. Reflectors are written
// first: a client without one is a client of all.
func (r *reflecting) look(ctx context.Context, _ time.Time) error {
	var networks koratv1.NodeNetworkList
	var configurations koratv1.BGPConfigurationList
	nodes := nodeList()
	if err := r.lists(ctx, &networks, &configurations, nodes); err != nil {
		return err
	}
	var want map[string]koratv1.Reflection
	for i := range configurations.Items {
		c := &configurations.Items[i]
		if x := c.Spec.Reflectors; c.Name == koratv1.BGPConfigurationName && x != nil && x.PerZone > 0 {
			candidates, err := selector.Parse(x.NodeSelector)
			if err != nil {
				return nil // said in its status; nobody is moved meanwhile
			}
			labels := map[string]map[string]string{}
			for k := range nodes.Items {
				labels[nodes.Items[k].Name] = nodes.Items[k].Labels
			}
			want = reflections(membersOf(networks.Items, labels, candidates, int64(c.Spec.ASNumber)), int(x.PerZone))
		}
	}
	return r.write(ctx, networks.Items, want)
}

// membersOf makes members of the nodes that exist.
func membersOf(networks []koratv1.NodeNetwork, labels map[string]map[string]string, candidates *selector.Selector, asn int64) []member {
	var out []member
	for i := range networks {
		n := &networks[i]
		l, exists := labels[n.Name]
		if !exists {
			continue
		}
		m := member{
			name: n.Name, zone: l[corev1.LabelTopologyZone], asn: cmp.Or(int64(n.Spec.ASNumber), asn),
			candidate: candidates.Matches(selector.MakeLabels(l)), leaving: n.Status.Draining || isSilent(n), settled: nearlyUp(n.Status.SessionSummary),
		}
		if n.Spec.Reflection != nil {
			m.now = *n.Spec.Reflection
		}
		out = append(out, m)
	}
	return out
}

func (r *reflecting) write(ctx context.Context, networks []koratv1.NodeNetwork, want map[string]koratv1.Reflection) error {
	var errs []error
	left := reflectAtOnce
	for _, role := range []koratv1.ReflectionRole{koratv1.RoleReflector, koratv1.RoleClient, ""} {
		for i := range networks {
			n := &networks[i]
			var is koratv1.Reflection
			if n.Spec.Reflection != nil {
				is = *n.Spec.Reflection
			}
			w := want[n.Name]
			if is == w || w.Role != role {
				continue
			}
			if left--; left < 0 {
				return errors.Join(errs...)
			}
			errs = append(errs, r.assign(ctx, n, w))
		}
	}
	return errors.Join(errs...)
}

// assign gives a node its part, or none.
func (r *reflecting) assign(ctx context.Context, n *koratv1.NodeNetwork, w koratv1.Reflection) error {
	var value any // null removes it
	if w.Role != "" {
		value = w
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": n.UID},
		"spec":     map[string]any{"reflection": value},
	})
	if err != nil {
		return fmt.Errorf("bug: reflection as JSON: %w", err)
	}
	into := &koratv1.NodeNetwork{}
	into.Name = n.Name
	switch err := r.Patch(ctx, into, client.RawPatch(types.MergePatchType, patch)); {
	case client.IgnoreNotFound(err) != nil:
		return fmt.Errorf("reflection of node %s: %w", n.Name, err)
	case err != nil: // the node is gone
		return nil
	}
	if w.Role == koratv1.RoleReflector {
		r.log.Info("node is a reflector", "node", n.Name, "cluster_id", w.ClusterID)
	}
	return nil
}
