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
func newKernel(ctx context.Context, board *status.Board, log *slog.Logger) (*kernel, error) {
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
	loop := apply.New(apply.Config{Board: board, Log: log.With("part", "apply"), Phases: []apply.Phase{
		{sysctl.New(sysctl.Root), links},
		{ipset.Adder{Sets: sets}},
		firewalls(ctx, log.With("part", "iptables")),
		{routes},
		{ipset.Remover{Sets: sets}},
	}})
	return &kernel{loop: loop, links: links, sets: sets, routes: routes, news: news}, nil
}

// firewalls makes those of both families. A host that cannot filter IPv6 still
// has pods that need none; which host that is does not change while it runs.
func firewalls(ctx context.Context, log *slog.Logger) []apply.Reconciler {
	of := func(f ir.Family, flavour iptables.Flavour) *iptables.Firewall {
		return iptables.New(iptables.Config{Family: f, Flavour: flavour, Log: log})
	}
	flavour, err := iptables.Detect(ctx)
	if err != nil { // each asks again, and says so, until it knows
		log.Warn("iptables flavour not detected", "err", err)
		return []apply.Reconciler{of(ir.IPv4, iptables.Auto), of(ir.IPv6, iptables.Auto)}
	}
	log.Info("iptables flavour detected", "flavour", string(flavour))
	if why := iptables.Usable(ctx, ir.IPv6, flavour); why != nil {
		log.Warn("this host cannot filter IPv6: pods with an IPv6 address stay closed", "err", why)
		return []apply.Reconciler{of(ir.IPv4, flavour), iptables.NewUnfiltered(why)}
	}
	return []apply.Reconciler{of(ir.IPv4, flavour), of(ir.IPv6, flavour)}
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
