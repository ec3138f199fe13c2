package controller

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	koratv1 "github.com/koratnet/korat/api/v1"
)

// The names of the pools that a new cluster gets.
const (
	DefaultPool   = "default"
	DefaultPoolV6 = "default-v6"
)

const defaultsRetry = 2 * time.Second

// defaultPools makes the pools of these CIDRs, at most one a family.
func defaultPools(cidrs []netip.Prefix) ([]*koratv1.IPPool, error) {
	seen := map[string]netip.Prefix{}
	var pools []*koratv1.IPPool
	for _, cidr := range cidrs {
		name := DefaultPool
		if cidr.Addr().Is6() {
			name = DefaultPoolV6
		}
		if other, twice := seen[name]; twice {
			return nil, fmt.Errorf("default pools %s and %s are of one family, expected at most one of each", other, cidr)
		}
		seen[name] = cidr
		pools = append(pools, &koratv1.IPPool{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: koratv1.IPPoolSpec{
				CIDR: koratv1.CIDR(cidr.String()),
				// A new cluster has no router yet that knows its pods, and IPv4 addresses
				// of pods are private. Those of IPv6 need not be.
				NATOutgoing: cidr.Addr().Is4(),
			},
		})
	}
	return pools, nil
}

// createDefaults creates the pools if there is no pool at all. An API server
// that is away is asked again; one that refuses a pool is an error.
func createDefaults(ctx context.Context, r client.Reader, w client.Writer, pools []*koratv1.IPPool, log *slog.Logger) error {
	var list koratv1.IPPoolList
	err := untilAnswered(ctx, log, func(ctx context.Context) error { return r.List(ctx, &list, client.Limit(1)) })
	if err != nil || len(list.Items) > 0 {
		return err
	}
	for _, p := range pools {
		err := untilAnswered(ctx, log, func(ctx context.Context) error {
			return client.IgnoreAlreadyExists(w.Create(ctx, p.DeepCopy()))
		})
		if err != nil {
			return fmt.Errorf("default pool %s: %w", p.Name, err)
		}
		log.Info("default pool created", "pool", p.Name, "cidr", string(p.Spec.CIDR))
	}
	return nil
}

// untilAnswered repeats ask until it succeeds, the API server calls the object
// invalid, or ctx ends, which is no error.
func untilAnswered(ctx context.Context, log *slog.Logger, ask func(context.Context) error) error {
	err := wait.PollUntilContextCancel(ctx, defaultsRetry, true, func(ctx context.Context) (bool, error) {
		err := ask(ctx)
		switch {
		case err == nil:
			return true, nil
		case apierrors.IsInvalid(err):
			return false, err
		}
		log.Warn("default pools are not made yet", "error", err)
		return false, nil
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}
