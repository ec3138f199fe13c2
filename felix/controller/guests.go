package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	anp "sigs.k8s.io/network-policy-api/apis/v1alpha1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/koratnet/korat/policy/convert"
)

// guestPace is how often policies of the kinds that not every cluster has are
// looked at. Their definitions are not ours and may come and go, which a cache
// does not bear; there are few such policies.
const guestPace = 10 * time.Second

// guests tells of problems of policies whose kinds the cluster may have. One
// goroutine runs it, and only in the replica that leads.
type guests struct {
	server client.Reader
	writer client.Client
	log    *slog.Logger
	told   map[types.UID]int64 // which generation of a policy was looked at
}

// Start looks until ctx ends.
func (g *guests) Start(ctx context.Context) error {
	tick := time.NewTicker(guestPace)
	defer tick.Stop()
	for {
		if err := g.look(ctx); err != nil && ctx.Err() == nil {
			g.log.Warn("cluster-wide policies are not looked at", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// look looks once. Kinds that the cluster does not have, have no policies.
func (g *guests) look(ctx context.Context) error {
	seen := map[types.UID]int64{}
	var errs []error
	for _, list := range []client.ObjectList{
		&cnp.ClusterNetworkPolicyList{}, &anp.AdminNetworkPolicyList{}, &anp.BaselineAdminNetworkPolicyList{},
	} {
		if err := g.server.List(ctx, list); meta.IsNoMatchError(err) || apierrors.IsNotFound(err) {
			continue
		} else if err != nil {
			errs = append(errs, fmt.Errorf("%T: %w", list, err))
			continue
		}
		errs = append(errs, meta.EachListItem(list, func(item runtime.Object) error {
			o := item.(client.Object)
			if g.told[o.GetUID()] != o.GetGeneration() {
				if err := tell(ctx, g.writer, o, policyWarnings(o.GetGeneration(), guestProblems(o))); err != nil {
					return err
				}
			}
			seen[o.GetUID()] = o.GetGeneration()
			return nil
		}))
	}
	g.told = seen
	return errors.Join(errs...)
}

// guestProblems says what of a policy of one of these kinds is not understood.
func guestProblems(o client.Object) []convert.Problem {
	var problems []convert.Problem
	switch o := o.(type) {
	case *cnp.ClusterNetworkPolicy:
		_, problems = convert.ClusterNetworkPolicy(o)
	case *anp.AdminNetworkPolicy:
		_, problems = convert.AdminNetworkPolicy(o)
	case *anp.BaselineAdminNetworkPolicy:
		_, problems = convert.BaselineAdminNetworkPolicy(o)
	}
	return problems
}
