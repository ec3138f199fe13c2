package controller

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/config"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/koratnet/korat/felix/kube"
)

// LeaseName is the name of the Lease that the leading replica holds.
const LeaseName = "korat-controller"

// DefaultNamespace is where the Lease is unless Config says otherwise.
const DefaultNamespace = "kube-system"

// stopWithin is how long the loops have to finish what they do at the end.
const stopWithin = 5 * time.Second

// Config is what the controller is told by flags; everything else it learns from
// the API.
type Config struct {
	REST        *rest.Config
	Namespace   string // of the Lease; empty: DefaultNamespace
	LeaderElect bool   // false: this is the only replica
	HTTPAddress string // of /livez, /readyz and /metrics; empty: none
	// DefaultPools are made when there is no IPPool as the controller becomes
	// leader, at most one of each family. None: no pool is made.
	DefaultPools []netip.Prefix
	// BlockGrace is how long the Node of a block has to be gone before the block
	// is deleted; 0: DefaultBlockGrace.
	BlockGrace time.Duration
	// Silence is how long an agent may not be heard of before that is said of its
	// node; 0: DefaultSilence.
	Silence time.Duration
	Version string
	Log     *slog.Logger
}

// Run runs the loops until ctx ends, then returns nil. With LeaderElect it waits
// to become leader first; losing that is an error, after which the process must
// end, because another replica may be at work. When Run returns because ctx ended
// the lease is given up, so the process must end then too.
func Run(ctx context.Context, c Config) error {
	pools, err := defaultPools(c.DefaultPools)
	if err != nil {
		return err
	}
	mgr, err := newManager(c)
	if err != nil {
		return fmt.Errorf("controller: %w", err)
	}
	err = mgr.Add(manager.RunnableFunc(func(ctx context.Context) error {
		c.Log.Info("controller leads", "version", c.Version)
		return createDefaults(ctx, mgr.GetAPIReader(), mgr.GetClient(), pools, c.Log)
	}))
	if err != nil {
		return fmt.Errorf("controller: %w", err)
	}
	if err := mgr.Add(newCollector(mgr, c)); err != nil {
		return fmt.Errorf("controller: %w", err)
	}
	if err := mgr.Add(newHearts(mgr, c)); err != nil {
		return fmt.Errorf("controller: %w", err)
	}
	if err := mgr.Add(newReflecting(mgr, c)); err != nil {
		return fmt.Errorf("controller: %w", err)
	}
	if err := mgr.Add(&guests{server: mgr.GetAPIReader(), writer: mgr.GetClient(), log: c.Log}); err != nil {
		return fmt.Errorf("controller: %w", err)
	}
	if err := addLoops(ctx, mgr, cmp.Or(c.Silence, DefaultSilence)); err != nil {
		return fmt.Errorf("controller: %w", err)
	}
	c.Log.Info("controller started", "version", c.Version, "leader_election", c.LeaderElect)
	return mgr.Start(ctx)
}

func newManager(c Config) (manager.Manager, error) {
	scheme, err := kube.Scheme()
	if err != nil {
		return nil, err
	}
	log := logr.FromSlogHandler(c.Log.Handler())
	ctrllog.SetLogger(log) // the library's own is silent and complains of that
	options := manager.Options{
		Scheme:                        scheme,
		Logger:                        log,
		Cache:                         cache.Options{DefaultTransform: slim, ReaderFailOnMissingInformer: true},
		LeaderElection:                c.LeaderElect,
		LeaderElectionID:              LeaseName,
		LeaderElectionNamespace:       c.Namespace,
		LeaderElectionReleaseOnCancel: true,
		GracefulShutdownTimeout:       ptr(stopWithin),
		Metrics:                       metricsserver.Options{BindAddress: c.HTTPAddress},
		HealthProbeBindAddress:        "0",                                              // one server for all is enough
		Controller:                    config.Controller{SkipNameValidation: ptr(true)}, // a process may run us again
	}
	if c.Namespace == "" {
		options.LeaderElectionNamespace = DefaultNamespace
	}
	if c.HTTPAddress == "" {
		options.Metrics.BindAddress = "0"
	}
	mgr, err := manager.New(c.REST, options)
	if err != nil || c.HTTPAddress == "" {
		return mgr, err
	}
	return mgr, addProbes(mgr)
}

// addProbes serves the probes beside the metrics. A replica that waits to lead is
// ready: it does all that is asked of it.
func addProbes(mgr manager.Manager) error {
	ok := func(w http.ResponseWriter, text string) { fmt.Fprintln(w, text) }
	live := func(w http.ResponseWriter, _ *http.Request) { ok(w, "ok") }
	ready := func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-mgr.Elected():
		default:
			ok(w, "ok: standby")
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), time.Second)
		defer cancel()
		if !mgr.GetCache().WaitForCacheSync(ctx) {
			http.Error(w, "objects are not listed yet", http.StatusServiceUnavailable)
			return
		}
		ok(w, "ok: leader")
	}
	if err := mgr.AddMetricsServerExtraHandler("/livez", http.HandlerFunc(live)); err != nil {
		return err
	}
	return mgr.AddMetricsServerExtraHandler("/readyz", http.HandlerFunc(ready))
}

func ptr[T any](v T) *T { return &v }
