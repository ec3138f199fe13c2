package cniserver_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/ipam"
)

// kernel is a data plane that has applied what was posted, or refuses.
type kernel struct {
	node      *kerneltest.Namespace
	mu        sync.Mutex // guards endpoints
	endpoints map[string]*event.Endpoint
	refuse    error
	synced    bool
	// waited is called when an ADD waits for its endpoint; may be nil.
	waited func()
}

func (k *kernel) Post(evs ...event.Event) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, ev := range evs {
		if old := k.endpoints[ev.Key.Name]; ev.Value == nil && old != nil {
			for _, a := range old.Addrs { // or it went with its interface
				_, _ = k.node.Try("ip", "route", "del", a.String(), "dev", ev.Key.Name)
			}
		}
		if ev.Value == nil {
			delete(k.endpoints, ev.Key.Name)
			continue
		}
		ep := ev.Value.(*event.Endpoint)
		k.endpoints[ev.Key.Name] = ep
		_ = k.route(ep) // or it waits for its interface
	}
}

func (k *kernel) route(ep *event.Endpoint) error {
	for _, a := range ep.Addrs {
		if out, err := k.node.Try("ip", "route", "replace", a.String(), "dev", ep.Interface); err != nil {
			return errors.New(out)
		}
	}
	return nil
}

func (k *kernel) Synced(event.Source) { k.synced = true }
func (k *kernel) Ready() error        { return k.refuse }

func (k *kernel) WaitEndpoint(ctx context.Context, iface string, generation uint64) error {
	if k.waited != nil {
		k.waited()
	}
	for {
		k.mu.Lock()
		ep, refuse := k.endpoints[iface], k.refuse
		k.mu.Unlock()
		if refuse != nil {
			return refuse
		}
		if ep != nil && ep.Generation == generation && k.route(ep) == nil {
			return nil
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (k *kernel) WaitGone(_ context.Context, iface string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.endpoints[iface] != nil {
		return errors.New("still there")
	}
	return nil
}

func (k *kernel) addrs() (all []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, ep := range k.endpoints {
		for _, a := range ep.Addrs {
			all = append(all, a.String())
		}
	}
	return all
}

// api lets every claim pass and remembers it.
type api struct {
	mu     sync.Mutex // guards blocks
	blocks map[netip.Prefix]ipam.Block
}

func (x *api) Claim(_ context.Context, b ipam.Block) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.blocks[b.CIDR] = b
	return nil
}

func (x *api) Release(_ context.Context, b ipam.Block) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.blocks[b.CIDR].Owner == b.Owner {
		delete(x.blocks, b.CIDR)
	}
	return nil
}

func (x *api) TakeOver(ctx context.Context, b ipam.Block, from ipam.Owner) error {
	if x.blocks[b.CIDR].Owner != from {
		return ipam.ErrConflict
	}
	return x.Claim(ctx, b)
}

func (x *api) Ask(context.Context, ipam.Block, ipam.Want) error { return nil }

func (x *api) Answer(context.Context, ipam.Block, []ipam.Want, []ipam.Want) error { return nil }

// takenFloat is a floating address that leads to another pod.
var takenFloat = netip.MustParseAddr("203.0.113.9")

// Floating lets every pod have every floating address but takenFloat.
func (m *machine) Floating(_, _ string, addrs []netip.Addr) error {
	if slices.Contains(addrs, takenFloat) {
		return fmt.Errorf("%s leads to pod ns/other", takenFloat)
	}
	return nil
}
