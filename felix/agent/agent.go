// Package agent wires the node's daemon: it makes every part, connects them in
// the one direction that data flows, and owns the goroutines. It decides nothing.
//
//	API server   CNI socket    kernel events   BGP neighbours
//	    │            │              │               │
//	 watch       cniserver        netmon         bgp/child
//	    └─────┬──────┘              │               │
//	          │◄────────────────────┼───────────────┘ learned
//	       mailbox                  │ pokes
//	          │                     │
//	        calc ── Delta ──► apply.Loop (kernel), apply.Loop (BGP)
//	                                │
//	                             status ──► CNI replies, /readyz, /metrics, report
package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"github.com/koratnet/korat/bgp/child"
	"github.com/koratnet/korat/bgp/reconcile"
	"github.com/koratnet/korat/felix/apply"
	"github.com/koratnet/korat/felix/cniserver"
	"github.com/koratnet/korat/felix/cniserver/audit"
	"github.com/koratnet/korat/felix/cniserver/wire"
	"github.com/koratnet/korat/felix/conflist"
	"github.com/koratnet/korat/felix/event/mailbox"
	"github.com/koratnet/korat/felix/flow"
	"github.com/koratnet/korat/felix/kernel/sysctl"
	"github.com/koratnet/korat/felix/kernel/wireguard"
	"github.com/koratnet/korat/felix/kube"
	"github.com/koratnet/korat/felix/pathmtu"
	"github.com/koratnet/korat/felix/peering"
	"github.com/koratnet/korat/felix/pod"
	"github.com/koratnet/korat/felix/report"
	"github.com/koratnet/korat/felix/status"
	"github.com/koratnet/korat/felix/watch"
	"github.com/koratnet/korat/ipam/assign"
	"github.com/koratnet/korat/ipam/journal"

	ipamkube "github.com/koratnet/korat/ipam/kube"
)

// Config is what the agent is told by flags; everything else it learns from the API.
type Config struct {
	Node        string // Kubernetes node name
	Namespace   string // that the agents run in: of the Secrets that BGP objects name
	Kubeconfig  string // path; empty: the credentials given to pods
	StateDir    string // survives reboots: the journal
	RunDir      string // does not survive reboots: the CNI socket
	HTTPAddress string // of /livez, /readyz and /metrics; empty: none
	Speaker     string // SpeakerChild or SpeakerBeside
	CNI         CNI
	Version     string
	Log         *slog.Logger
}

// Who starts the BGP speaker of the node.
const (
	SpeakerChild  = "child"  // the agent, where none runs
	SpeakerBeside = "beside" // somebody else
)

// CNI is where the container runtime looks for networks.
type CNI struct {
	ConfDir string   // of configurations; empty: somebody else writes ours
	BinDir  string   // of plugins
	Chain   []string // plugins that run after ours, where they are installed
}

// Run runs the agent until ctx ends. It takes nothing down at its end: routes,
// rules and interfaces stay, and BGP neighbours keep the node's routes for the
// restart time.
func Run(ctx context.Context, c Config) (err error) {
	if c.Speaker != SpeakerChild && c.Speaker != SpeakerBeside {
		return fmt.Errorf("--speaker is %q, expected %s or %s", c.Speaker, SpeakerChild, SpeakerBeside)
	}
	if err := os.MkdirAll(c.RunDir, 0o755); err != nil {
		return fmt.Errorf("run directory: %w", err)
	}
	if err := sysctl.MakeWritable(); err != nil {
		return err
	}
	clients, err := kubeClients(c)
	if err != nil {
		return err
	}
	books, err := journal.Open(c.StateDir, c.Node)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, books.Close()) }()
	if damage := books.Damage(); damage != nil {
		c.Log.Error("the books of addresses were damaged and are made anew from what runs", "error", damage)
	}
	host, err := pod.NewHost()
	if err != nil {
		return err
	}
	defer host.Close()
	uplink, err := host.UplinkMTU()
	if err != nil {
		return err
	}

	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	board := status.New(registry)
	box := mailbox.New()
	blocks := ipamkube.NewBlocks(clients.Korat)
	allocator := assign.New(books, blocks, time.Now, c.Log.With("part", "ipam"))
	var neighbours *apply.Loop
	speaker := child.NewClient(c.RunDir, func() { neighbours.Poke(apply.Poke{Lost: true}) })
	ring, err := wireguard.OpenRing(c.StateDir)
	if err != nil {
		return err
	}
	tellKeys(ring, box.Post)
	encryption := wireguard.Config{Ring: ring, RunDir: c.RunDir, Version: c.Version, Command: []string{"korat", "wireguard"}}
	kernel, err := newKernel(board, encryption, box.Post, c.Log)
	if err != nil {
		return err
	}
	defer kernel.close()
	registry.MustRegister(encryptionMetrics{kernel.encrypted, ring})
	neighbours = apply.New(apply.Config{Phases: []apply.Phase{{reconcile.New(speaker)}}, Board: board, Log: c.Log})
	node := &local{name: c.Node, version: c.Version, board: board, speaker: speaker, allocator: allocator, ledger: report.NewLedger(), listed: make(chan struct{}), directory: newDirectory(clients, c.Node), books: books}
	node.tunnels = newTunnels(c.Node, allocator, books, kernel, box.Post, c.Log.With("part", "tunnels"))
	node.tunnels.fallBack(uplink)
	registry.MustRegister(hostMetrics{node.tunnels, kernel.reaches.Nodes})
	turns := &rotation{ring: ring, encrypted: kernel.encrypted, left: func(now time.Time) (wireguard.Left, error) { return wireguard.Look(encryption, now) }, tunnels: node.tunnels, post: box.Post, log: c.Log.With("part", "rotation")}
	turns.begin()
	others := func() []pathmtu.Peer { return node.tunnels.paths(pathPeers(kernel.reaches)) }
	if node.paths, err = pathmtu.New(others, kernel.distrust); err != nil {
		return err
	}
	cni := cniserver.New(cniserver.Config{
		RunDir: c.RunDir, MTU: node.podMTU, Allocator: allocator, Journal: books, Wirer: host, Directory: node.directory,
		Chain: c.CNI.Chain, Status: board, Box: box, Log: c.Log.With("part", "cni"),
	})
	if err := cni.Recover(); err != nil {
		return fmt.Errorf("endpoints of the journal: %w", err)
	}
	reporter := report.New(report.Config{
		Client: clients.Korat, Core: clients.Core, Leases: clients.Coordination, Node: c.Node, Facts: node.facts, Log: c.Log.With("part", "report"),
		Blocks: func(ctx context.Context) error { return blocks.PublishAll(ctx, allocator) },
	})

	drops := flow.New(flow.Config{Node: c.Node, Registry: registry, Log: c.Log.With("part", "flow")})

	desk := peering.NewDesk(c.Node, speaker)

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return watch.Run(ctx, clients, c.Namespace, &tee{Mailbox: box, node: node}, c.Log.With("part", "watch"))
	})
	g.Go(func() error {
		return calculate(ctx, c.Node, box, node.note, kernel.loop.Want, neighbours.Want, drops.Want, desk.Note)
	})
	g.Go(func() error { return drops.Run(ctx) })
	g.Go(func() error { return drops.Serve(ctx, c.RunDir) })
	g.Go(func() error { return desk.Serve(ctx, c.RunDir) })
	g.Go(func() error { return kernel.loop.Run(ctx) })
	g.Go(func() error { return kernel.listen(ctx) })
	g.Go(func() error { return kernel.followProxy(ctx, box.Post) })
	g.Go(func() error { return neighbours.Run(ctx) })
	g.Go(func() error { return c.keeper(speaker).Run(ctx) })
	g.Go(func() error { return reconcile.Listen(ctx, speaker, box) })
	g.Go(func() error { return cni.Run(ctx) })
	g.Go(func() error { return kernel.followNodes(ctx) })
	g.Go(func() error { return node.tunnels.run(ctx) })
	g.Go(func() error { return turns.run(ctx) })
	g.Go(func() error { return node.paths.Run(ctx) })
	g.Go(func() error {
		return (&upkeep{node: node, cni: cni, host: host, log: c.Log.With("part", "upkeep")}).run(ctx)
	})
	g.Go(func() error { return allocator.Serve(ctx) })
	g.Go(func() error { return reporter.Run(ctx) })
	g.Go(func() error {
		return (&report.Availability{
			Core: clients.Core, Node: c.Node, Log: c.Log.With("part", "report"),
			Serving: func() report.Serving { return node.serving(c.CNI.ConfDir) },
		}).Run(ctx)
	})
	if c.CNI.ConfDir != "" {
		g.Go(func() error {
			return conflist.New(conflist.Config{
				Dir: c.CNI.ConfDir, BinDir: c.CNI.BinDir, Chain: c.CNI.Chain, Ready: board.Ready,
				Socket: filepath.Join(c.RunDir, filepath.Base(wire.DefaultSocket)), Log: c.Log.With("part", "cni"),
			}).Run(ctx)
		})
	}
	g.Go(func() error { return serve(ctx, c.HTTPAddress, registry, board, cni) })
	c.Log.Info("agent started", "node", c.Node, "version", c.Version)
	err = g.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func kubeClients(c Config) (*kube.Clients, error) {
	cfg, err := kube.Config(c.Kubeconfig, "korat-agent/"+c.Version)
	if err != nil {
		return nil, err
	}
	return kube.New(cfg)
}

// keeper returns who sees to it that a speaker runs.
func (c Config) keeper(speaker *child.Client) *child.Keeper {
	k := &child.Keeper{RunDir: c.RunDir, Version: c.Version, Client: speaker, Log: c.Log.With("part", "bgp")}
	if c.Speaker == SpeakerChild {
		k.Command = []string{"korat", "speaker", "--run-dir", c.RunDir}
	}
	return k
}

// serve answers probes, Prometheus and koratctl until ctx ends.
func serve(ctx context.Context, address string, registry *prometheus.Registry, board *status.Board, cni *cniserver.Server) error {
	if address == "" {
		return nil
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := board.Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET "+audit.Path, func(w http.ResponseWriter, _ *http.Request) {
		n, err := cni.Audit()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(n) // who asked may have gone
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	srv := &http.Server{Addr: address, Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.ListenAndServe(); ctx.Err() == nil {
		return fmt.Errorf("http address %q: %w", address, err)
	}
	return nil
}
