package agent

import (
	"context"
	"log/slog"

	"github.com/koratnet/korat/felix/apply"
	"github.com/koratnet/korat/felix/iptables"
	"github.com/koratnet/korat/felix/kernel/ipset"
	"github.com/koratnet/korat/felix/kernel/link"
	"github.com/koratnet/korat/felix/kernel/route"
	"github.com/koratnet/korat/felix/kernel/sysctl"
	"github.com/koratnet/korat/felix/netmon"
	"github.com/koratnet/korat/felix/status"
	"github.com/koratnet/korat/policy/ir"
)

// backend is what enforces policy, as NodeNetwork tells it.
const backend = "iptables"

// kernel is the loop over everything that is programmed into the kernel.
type kernel struct {
	loop   *apply.Loop
	links  *link.Reconciler
	sets   *ipset.Sets
	routes *route.Reconciler
	news   *netmon.Monitor
}

// newKernel makes the reconcilers. The order of the phases is a promise: no
// rule before its set, no route before its rules, no set removed before the
// rules that used it.
func newKernel(board *status.Board, log *slog.Logger) (*kernel, error) {
	links, err := link.New()
	if err != nil {
		return nil, err
	}
	sets, err := ipset.New()
	if err != nil {
		return nil, err
	}
	routes, err := route.New()
	if err != nil {
		return nil, err
	}
	news, err := netmon.New(routes.Port())
	if err != nil {
		return nil, err
	}
	firewall := func(f ir.Family) *iptables.Firewall {
		return iptables.New(iptables.Config{Family: f, Flavour: iptables.Auto, Log: log.With("part", "iptables")})
	}
	loop := apply.New(apply.Config{Board: board, Log: log.With("part", "apply"), Phases: []apply.Phase{
		{sysctl.New(sysctl.Root), links},
		{ipset.Adder{Sets: sets}},
		{firewall(ir.IPv4), firewall(ir.IPv6)},
		{routes},
		{ipset.Remover{Sets: sets}},
	}})
	return &kernel{loop: loop, links: links, sets: sets, routes: routes, news: news}, nil
}

// listen passes on what the kernel tells until ctx ends.
func (k *kernel) listen(ctx context.Context) error {
	return k.news.Run(ctx, func(c netmon.Change) { k.loop.Poke(apply.Poke(c)) })
}

func (k *kernel) close() {
	k.links.Close()
	k.sets.Close()
	k.routes.Close()
}
