package remains

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/koratnet/korat/felix/apply"
	"github.com/koratnet/korat/felix/bandwidth"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/nftables"
	"github.com/koratnet/korat/felix/kernel/route"
	"github.com/koratnet/korat/felix/kernel/tunnel"
	"github.com/koratnet/korat/felix/kernel/wireguard"
)

func (r *Remains) findPods(context.Context) ([]string, error) {
	wired, err := r.host.Wired()
	var names []string
	for _, w := range wired {
		names = append(names, fmt.Sprint(w.HostInterface, w.Addrs))
	}
	return names, err
}

func (r *Remains) removePods(context.Context) error {
	wired, err := r.host.Wired()
	errs := []error{err, r.host.Reap()}
	for _, w := range wired {
		errs = append(errs, r.host.Detach(w.HostInterface))
	}
	return errors.Join(errs...)
}

func findRoutes(context.Context) ([]string, error) { return route.Present() }

func removeRoutes(ctx context.Context) error {
	r, err := route.New()
	if err != nil {
		return err
	}
	return errors.Join(wantNothing(ctx, r), r.Close())
}

func findTunnels(context.Context) ([]string, error) { return tunnel.Present() }

func removeTunnels(ctx context.Context) error {
	r, err := tunnel.New()
	if err != nil {
		return err
	}
	err = errors.Join(wantNothing(ctx, r), r.Close())
	w, err2 := wireguard.New(wireguard.Config{}) // what is to go needs no key
	if err2 != nil {
		return errors.Join(err, err2)
	}
	return errors.Join(err, wantNothing(ctx, w), w.Close())
}

// wantNothing has a reconciler remove all that is ours.
func wantNothing(ctx context.Context, r apply.Reconciler) error {
	r.Want(desired.Delta{Complete: true, Learned: true})
	if err := r.Resync(ctx); err != nil {
		return err
	}
	return r.Apply(ctx)
}

func findLimits(context.Context) ([]string, error) {
	there, err := nftables.Exists(nftables.Inet, bandwidth.TableName)
	if !there {
		return nil, err
	}
	return []string{"table " + bandwidth.TableName}, err
}

func removeLimits(ctx context.Context) error {
	t, err := nftables.Open(nftables.Inet, bandwidth.TableName)
	if err != nil {
		return err
	}
	return errors.Join(t.Uninstall(ctx), t.Close())
}

func (r *Remains) findPolicy(ctx context.Context) ([]string, error) {
	planes, err := r.planes.Present(ctx)
	var names []string
	for _, p := range planes {
		names = append(names, p.Name)
	}
	return names, err
}

// removePolicy removes the parts of a plane that need others before those.
func (r *Remains) removePolicy(ctx context.Context) error {
	planes, err := r.planes.Present(ctx)
	if err != nil {
		return err
	}
	for _, plane := range planes {
		for _, name := range slices.Backward(plane.Parts) {
			part, err := r.planes.Make(name)
			if err != nil {
				return err
			}
			if err := part.Uninstall(ctx); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return nil
}
