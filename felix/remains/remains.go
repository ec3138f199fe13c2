// Package remains finds what Korat has on a node, and removes it, when the node is
// to have another network or none. The command korat uninstall calls it, where no
// agent runs any more; an agent would make everything anew.
//
// The order makes that nothing opens by accident. Each step may be the last one
// before a crash, and all of them may be done again:
//
//	configuration for the runtime   no new pod comes
//	speaker                         routers and nodes are told to send nothing here
//	pods' interfaces, routes        no packet reaches a pod
//	rules of routing, tunnels, limits
//	rules of policy                 which by now nobody is behind but the node
//	plugin, sockets, journal
//
// Parameters of the kernel stay as they are: nobody can know what they were before,
// and other programs of a node need forwarding too. Those of pods' interfaces go
// with them.
package remains

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"

	"github.com/koratnet/korat/felix/backend"
	"github.com/koratnet/korat/felix/cniserver/wire"
	"github.com/koratnet/korat/felix/pod"
)

// Config says where Korat is on this node, as the agent's flags do.
type Config struct {
	RunDir, StateDir string
	ConfDir, BinDir  string
	// CutPods has pods that still run lose their network. Without it Remove refuses
	// to begin while there are any.
	CutPods bool
	// KeepState leaves the state directory, with the journal of addresses.
	KeepState bool
	Log       *slog.Logger
}

// ErrPods says that pods of Korat's run on the node.
var ErrPods = errors.New("pods still have their network from Korat")

// ErrAgent says that an agent runs on the node.
var ErrAgent = errors.New("an agent of Korat runs on this node")

// part is one kind of what there is.
type part struct {
	name   string
	find   func(context.Context) ([]string, error) // what is there, for people
	remove func(context.Context) error             // of what find finds; the absent is no error
}

// Remains are those of the network namespace of the thread that calls New.
type Remains struct {
	Config
	host   *pod.Host
	planes *backend.Planes
}

// New returns the remains of the node.
func New(c Config) (*Remains, error) {
	host, err := pod.NewHost()
	if err != nil {
		return nil, err
	}
	return &Remains{Config: c, host: host, planes: backend.New(c.Log)}, nil
}

// Close closes the netlink sockets.
func (r *Remains) Close() { r.host.Close() }

// parts are in the order in which they are removed.
func (r *Remains) parts() []part {
	all := []part{
		{"network configuration", r.findConfiguration, r.removeConfiguration},
		{"BGP speaker", r.findSpeaker, r.removeSpeaker},
		{"interface of a pod", r.findPods, r.removePods},
		{"route", findRoutes, removeRoutes},
		{"rule of routing", findRules, removeRules},
		{"tunnel", findTunnels, removeTunnels},
		{"limits of bandwidth", findLimits, removeLimits},
		{"rules of policy", r.findPolicy, r.removePolicy},
		{"plugin", r.findPlugin, r.removePlugin},
		{"run directory", within(r.RunDir), empty(r.RunDir)},
	}
	if !r.KeepState {
		all = append(all, part{"state directory", within(r.StateDir), empty(r.StateDir)})
	}
	return all
}

// Find returns a line for each thing of Korat's that is on the node.
func (r *Remains) Find(ctx context.Context) ([]string, error) {
	var found []string
	var errs []error
	for _, p := range r.parts() {
		things, err := p.find(ctx)
		if err != nil {
			errs = append(errs, fmt.Errorf("look for %s: %w", p.name, err))
		}
		for _, t := range things {
			found = append(found, p.name+": "+t)
		}
	}
	return found, errors.Join(errs...)
}

// Remove removes everything, and looks whether it has gone. What fails ends it:
// what comes later may be what keeps something closed. Errors: ErrAgent and ErrPods,
// before anything is removed, and those of the kernel and the disk.
func (r *Remains) Remove(ctx context.Context) error {
	if err := r.noAgent(ctx); err != nil {
		return err
	}
	pods, err := r.findPods(ctx)
	if err != nil {
		return err
	}
	if len(pods) > 0 && !r.CutPods {
		return fmt.Errorf("%w: %d, behind %v", ErrPods, len(pods), pods)
	}
	for _, p := range r.parts() {
		there, err := p.find(ctx)
		if err != nil {
			return fmt.Errorf("look for %s: %w", p.name, err)
		}
		if len(there) == 0 {
			continue
		}
		if err := p.remove(ctx); err != nil {
			return fmt.Errorf("remove %s: %w", p.name, err)
		}
		r.Log.Info("removed", "what", p.name, "count", len(there))
	}
	left, err := r.Find(ctx)
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("still there after all was removed: %v", left)
	}
	return err
}

// noAgent returns ErrAgent if one answers on its socket.
func (r *Remains) noAgent(ctx context.Context) error {
	socket := filepath.Join(r.RunDir, filepath.Base(wire.DefaultSocket))
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return ctx.Err() // nobody listens
	}
	return errors.Join(fmt.Errorf("%w, at %s: end it first", ErrAgent, socket), conn.Close())
}
