package cniserver_test

import (
	"context"
	"errors"
	"net/netip"
	"sync"

	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/ipam"
)

// kernel is a data plane that has applied what was posted, or refuses.
type kernel struct {
	mu        sync.Mutex // guards endpoints
	endpoints map[string]*event.Endpoint
	refuse    error
	synced    bool
}

func (k *kernel) Post(evs ...event.Event) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, ev := range evs {
		if ev.Value == nil {
			delete(k.endpoints, ev.Key.Name)
		} else {
			k.endpoints[ev.Key.Name] = ev.Value.(*event.Endpoint)
		}
	}
}

func (k *kernel) Synced(event.Source) { k.synced = true }
func (k *kernel) Ready() error        { return k.refuse }

func (k *kernel) WaitEndpoint(_ context.Context, iface string, generation uint64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if ep := k.endpoints[iface]; ep == nil || ep.Generation != generation {
		return errors.New("not applied")
	}
	return k.refuse
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
