package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	koratv1 "github.com/koratnet/korat/api/v1"
)

// DefaultSilence is how long an agent may not renew its Lease before its node
// counts as not heard of: three beats.
const DefaultSilence = 2 * time.Minute

// hearts looks at the Leases of agents, and says of nodes whose agent is silent
// that nothing is known of them. The agent itself takes that back. One goroutine
// runs it, and only in the replica that leads.
type hearts struct {
	cache   client.Reader
	server  client.Reader // Leases are listed now and then: a watch would hear of every beat
	writer  client.Client
	silence time.Duration
	log     *slog.Logger
	beats   map[string]beat // by node
}

// beat is the last that a node let hear of it. Clocks of nodes differ: only that
// the Lease changed counts, and when it was seen here.
type beat struct {
	renewed time.Time
	seen    time.Time
}

func newHearts(mgr manager.Manager, c Config) *hearts {
	return &hearts{
		cache: mgr.GetClient(), server: mgr.GetAPIReader(), writer: mgr.GetClient(),
		silence: cmp.Or(c.Silence, DefaultSilence), log: c.Log, beats: map[string]beat{},
	}
}

// Start runs it until ctx ends.
func (h *hearts) Start(ctx context.Context) error {
	return every(ctx, h.silence/4, h.listen, func(err error) { h.log.Warn("agents that are silent are not told of", "error", err) })
}

// listen looks once. A new leader has heard nothing and waits anew.
func (h *hearts) listen(ctx context.Context, now time.Time) error {
	var networks koratv1.NodeNetworkList
	if err := h.cache.List(ctx, &networks, shared); err != nil {
		return fmt.Errorf("node networks: %w", err)
	}
	var leases coordinationv1.LeaseList
	err := h.server.List(ctx, &leases, client.InNamespace(koratv1.LeaseNamespace), client.MatchingLabels{koratv1.LeaseLabel: koratv1.LeaseOfAgent},
		&client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: "0"}}) // a moment old is new enough, and cheap
	if err != nil {
		return fmt.Errorf("leases of agents: %w", err)
	}
	renewed := map[string]time.Time{}
	for _, l := range leases.Items {
		if l.Spec.RenewTime != nil {
			renewed[strings.TrimPrefix(l.Name, koratv1.LeaseOfAgent+".")] = l.Spec.RenewTime.Time
		}
	}
	var errs []error
	for _, name := range h.silent(networks.Items, renewed, now) {
		errs = append(errs, h.tell(ctx, name, renewed[name]))
	}
	return errors.Join(errs...)
}

// silent returns the nodes whose agents have not renewed their Lease for too
// long, and of which that is not said yet.
func (h *hearts) silent(networks []koratv1.NodeNetwork, renewed map[string]time.Time, now time.Time) []string {
	var names []string
	beats := map[string]beat{}
	for i := range networks {
		n := &networks[i]
		b, heard := h.beats[n.Name]
		if !heard || !b.renewed.Equal(renewed[n.Name]) {
			b = beat{renewed[n.Name], now}
		}
		beats[n.Name] = b
		if now.Sub(b.seen) >= h.silence && !isSilent(n) {
			names = append(names, n.Name)
		}
	}
	h.beats = beats
	return names
}

// isSilent reports whether it is said of a node that its agent is silent.
func isSilent(n *koratv1.NodeNetwork) bool {
	c := meta.FindStatusCondition(n.Status.Conditions, koratv1.ConditionReady)
	return c != nil && c.Status == metav1.ConditionUnknown && c.Reason == koratv1.ReasonAgentSilent
}

// tell says of a node that nothing is known of it, unless its agent says
// something at the same time.
func (h *hearts) tell(ctx context.Context, name string, last time.Time) error {
	n := &koratv1.NodeNetwork{}
	if err := h.server.Get(ctx, client.ObjectKey{Name: name}, n); err != nil {
		return client.IgnoreNotFound(err)
	}
	conditions := slices.Clone(n.Status.Conditions)
	message := "its agent never renewed its Lease"
	if !last.IsZero() {
		message = "its agent renewed its Lease last at " + last.UTC().Format(time.RFC3339)
	}
	meta.SetStatusCondition(&conditions, metav1.Condition{
		Type: koratv1.ConditionReady, Status: metav1.ConditionUnknown, Reason: koratv1.ReasonAgentSilent, Message: message,
	})
	patch, err := statusPatch(n, conditionsOnly{conditions}, n.ResourceVersion)
	if err != nil {
		return err
	}
	err = h.writer.Status().Patch(ctx, n, client.RawPatch(types.MergePatchType, patch))
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil
	}
	if err == nil {
		h.log.Info("agent is silent", "node", name, "last", last)
	}
	return err
}
