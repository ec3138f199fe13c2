package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/koratnet/korat/felix/cniserver"
	"github.com/koratnet/korat/felix/pod"
	"github.com/koratnet/korat/ipam"
)

const (
	upkeepEvery  = 5 * time.Second
	collectEvery = time.Minute // longer than an ADD may take
)

// upkeep keeps the node's books of addresses true to what runs: it adopts pods
// and blocks that a lost state directory knew, and frees what pods left behind.
type upkeep struct {
	node *local
	cni  *cniserver.Server
	host *pod.Host
	log  *slog.Logger
}

// run works until ctx ends. It begins when the API server has told all; only
// after it has tried once to get the node's former blocks back, which takes as long
// as another agent of this node's name has to say that it lives, new ones are claimed.
func (u *upkeep) run(ctx context.Context) error {
	select {
	case <-u.node.listed:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	tick := time.NewTicker(upkeepEvery)
	defer tick.Stop()
	begun := u.node.tunnels.begun
	adopted := false
	collected := time.Now()
	for {
		once, cancel := context.WithTimeout(ctx, upkeepEvery)
		err := u.recover(once, &adopted)
		cancel()
		if err != nil || !u.node.allocator.Challenging() {
			u.node.allocator.Listed()
		}
		if begun == nil {
			err = errors.Join(err, u.followMTU())
		}
		if time.Since(collected) >= collectEvery {
			err = errors.Join(err, u.cni.Collect(u.node.claimed), u.giveBack(ctx))
			collected = time.Now()
		}
		err = errors.Join(err, u.node.books.Probe())
		if err != nil && ctx.Err() == nil {
			u.log.Warn("books of addresses are not true yet", "error", err)
		}
		select {
		case <-tick.C:
		case <-begun:
			begun = nil // from now on it is known what leaves pods how much room
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// followMTU gives running pods the MTU that the engine computed.
func (u *upkeep) followMTU() error {
	if u.node.tunnels.alone() {
		uplink, err := u.host.UplinkMTU()
		if err != nil {
			return fmt.Errorf("MTU of pods: %w", err)
		}
		u.node.tunnels.fallBack(uplink)
	}
	mtu, err := u.cni.FollowMTU()
	if err == nil {
		u.node.tunnels.followed(mtu)
	}
	return err
}

// recover adopts pods, once or whenever blocks are to be taken over, and then
// takes these over.
func (u *upkeep) recover(ctx context.Context, adopted *bool) error {
	former := u.node.allocator.Former()
	if *adopted && len(former) == 0 && u.node.allocator.Problem() == nil {
		return nil
	}
	if err := u.cni.Adopt(u.node.podsIn(former)); err != nil {
		return err
	}
	*adopted = true
	return u.node.allocator.TakeOver(ctx, former)
}

func (u *upkeep) giveBack(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, upkeepEvery)
	defer cancel()
	return u.node.allocator.GiveBack(ctx)
}

// podsIn returns the node's pods, each with those addresses that lie in blocks.
func (l *local) podsIn(blocks []ipam.Block) []cniserver.Pod {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []cniserver.Pod
	for _, p := range l.pods {
		x := cniserver.Pod{Namespace: p.Namespace, Name: p.Name}
		for _, a := range p.Addrs {
			if slices.ContainsFunc(blocks, func(b ipam.Block) bool { return b.CIDR.Contains(a) }) {
				x.Addrs = append(x.Addrs, a)
			}
		}
		out = append(out, x)
	}
	return out
}

// claimed reports whether the API server says that a pod of this node has addr.
func (l *local) claimed(addr netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.pods {
		if slices.Contains(p.Addrs, addr) {
			return true
		}
	}
	return false
}
