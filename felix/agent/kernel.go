package agent

import (
	"context"
	"log/slog"
	"maps"
	"time"

	"github.com/koratnet/korat/felix/apply"
	"github.com/koratnet/korat/felix/backend"
	"github.com/koratnet/korat/felix/bandwidth"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/felix/kernel/link"
	"github.com/koratnet/korat/felix/kernel/route"
	"github.com/koratnet/korat/felix/kernel/rule"
	"github.com/koratnet/korat/felix/kernel/sysctl"
	"github.com/koratnet/korat/felix/kernel/tunnel"
	"github.com/koratnet/korat/felix/kernel/wireguard"
	"github.com/koratnet/korat/felix/netmon"
	"github.com/koratnet/korat/felix/status"
)

// kernel is the loop over everything that is programmed into the kernel.
type kernel struct {
	loop        *apply.Loop
	links       *link.Reconciler
	routes      *route.Reconciler
	rules       *rule.Reconciler
	tunnels     *tunnel.Reconciler
	encrypted   *wireguard.Reconciler
	ring        *wireguard.Ring
	reaches     *netmon.Reaches
	connections *connections
	bandwidth   *bandwidth.Reconciler
	news        *netmon.Monitor
	interfaces  *netmon.Interfaces
	log         *slog.Logger
}

// newKernel makes the reconcilers, and posts the interfaces that there are. The
// order of the phases is a promise: no rule before its set, no route before its
// rules, no set removed before the rules that used it.
func newKernel(board *status.Board, encryption wireguard.Config, post func(...event.Event), log *slog.Logger) (*kernel, error) {
	links, err := link.New()
	if err != nil {
		return nil, err
	}
	routes, err := route.New()
	if err != nil {
		return nil, err
	}
	rules, err := rule.New()
	if err != nil {
		return nil, err
	}
	tunnels, err := tunnel.New()
	if err != nil {
		return nil, err
	}
	encrypted, err := wireguard.New(encryption)
	if err != nil {
		return nil, err
	}
	reaches, err := netmon.NewReaches(post)
	if err != nil {
		return nil, err
	}
	connections, err := newConnections(log.With("part", "conntrack"))
	if err != nil {
		return nil, err
	}
	limits, err := bandwidth.New()
	if err != nil {
		return nil, err
	}
	news, err := netmon.New(routes.Port(), rules.Port(), encrypted.Port())
	if err != nil {
		return nil, err
	}
	interfaces, err := netmon.NewInterfaces(post)
	if err != nil {
		return nil, err
	}
	if err := interfaces.LookAll(); err != nil {
		return nil, err
	}
	phases := make([]apply.Phase, backend.Removed+1) // those of data planes come when settings are known
	phases[0] = apply.Phase{sysctl.New(sysctl.Root), links, tunnels, encrypted, limits}
	phases[backend.Routes] = apply.Phase{routes, rules}
	connections.enter(phases)
	loop := apply.New(apply.Config{
		Phases: phases, Planes: backend.New(log.With("part", "backend")), Board: board, Log: log.With("part", "apply"),
	})
	k := &kernel{loop: loop, links: links, routes: routes, rules: rules, tunnels: tunnels, encrypted: encrypted, ring: encryption.Ring, reaches: reaches, connections: connections, bandwidth: limits, news: news, interfaces: interfaces, log: log.With("part", "netmon")}
	k.lookForProxy(post)
	return k, nil
}

// tunnelState returns the wanted tunnels, each with what is wrong with it.
func (k *kernel) tunnelState() map[desired.TunnelKind]error {
	state := k.tunnels.State()
	maps.Copy(state, k.encrypted.State())
	return state
}

// proxyEvery is how often somebody looks whether kube-proxy has changed its mode:
// after a boot it may begin after the agent.
const proxyEvery = 30 * time.Second

// followProxy posts what kube-proxy uses until ctx ends.
func (k *kernel) followProxy(ctx context.Context, post func(...event.Event)) error {
	tick := time.NewTicker(proxyEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			k.lookForProxy(post)
		}
	}
}

// lookForProxy posts what kube-proxy uses. The engine knows what is no news.
func (k *kernel) lookForProxy(post func(...event.Event)) {
	found, err := backend.ProxyUsesNFTables()
	if err != nil {
		k.log.Debug("kube-proxy is not found", "err", err)
		return
	}
	post(event.Set("kube-proxy", &event.Proxy{NFTables: found}))
}

// followNodes posts how the kernel reaches other nodes until ctx ends.
func (k *kernel) followNodes(ctx context.Context) error {
	return k.reaches.Run(ctx, func(err error) { k.log.Warn("ways to other nodes may have changed unseen", "error", err) })
}

// listen passes on what the kernel tells until ctx ends.
func (k *kernel) listen(ctx context.Context) error {
	return k.news.Run(ctx, func(c netmon.Change) {
		k.loop.Poke(apply.Poke(c))
		k.reaches.Look(c)
		if err := k.interfaces.Look(c); err != nil {
			k.log.Warn("host endpoints may not find their interface", "err", err)
		}
	})
}

func (k *kernel) close() {
	k.links.Close()
	k.routes.Close()
	k.rules.Close()
	k.tunnels.Close()
	k.encrypted.Close()
	k.reaches.Close()
	k.connections.close()
	k.bandwidth.Close()
	k.interfaces.Close()
}
