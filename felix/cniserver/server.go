// Package cniserver answers the CNI plugin on a unix socket. It is one of the
// letterboxes: an attachment becomes an event, and ADD is answered only when
// the event's effect, policy and route, is in the kernel.
//
// Order of an ADD: an address from ipam/assign (memory), then all at the same time
// that takes its time: the journal (disk), the veth, and the event, of which the
// effect is policy and then, when the veth is there, the route. The answer waits for
// all of them. A crash at any point leaves nothing, a journalled attachment, which
// the runtime's retry finds or its DEL removes, or a veth that the journal does not
// know and that is adopted: its address is not given to another before it is gone.
package cniserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sync/errgroup"

	"github.com/koratnet/korat/felix/cniserver/wire"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/ipam"
	"github.com/koratnet/korat/ipam/journal"
	"github.com/koratnet/korat/policy/selector"

	podnet "github.com/koratnet/korat/felix/pod"
)

// addTimeout bounds an ADD: a runtime gives up after minutes, and its user
// wants to read before that what is missing.
const addTimeout = 30 * time.Second

// Allocator hands out addresses; ipam/assign implements it.
type Allocator interface {
	Assign(context.Context, ipam.Handle, ipam.Request) ([]netip.Addr, error)
	Hold(ipam.Handle, []netip.Addr) error
	Undo(ipam.Handle, []netip.Addr)
	// Rest says how long addresses rest that h gives back now, kept for keep for its return.
	Rest(h ipam.Handle, addrs []netip.Addr, keep time.Duration) journal.Rest
	Release(ipam.Handle, []netip.Addr, journal.Rest)
}

// Journal records attachments; ipam/journal implements it.
type Journal interface {
	State() journal.State
	Find(ipam.Handle) (journal.Attachment, bool)
	On(hostInterface string) []journal.Attachment
	Attach(journal.Attachment) (generation uint64, err error)
	// Begin is an Attach of which wait, called once and at once, returns the outcome.
	Begin(journal.Attachment) (generation uint64, wait func() error)
	Detach(ipam.Handle, journal.Rest) error
}

// Wirer attaches pods; felix/pod implements it.
type Wirer interface {
	// Prepare removes what has the name of the host interface and is not Spec's.
	Prepare(podnet.Spec) error
	Attach(podnet.Spec) (net.HardwareAddr, error)
	Detach(hostInterface string) error
	SetMTU(podnet.Spec) error
	Retire(hostInterface string) error
	Reap() error
	Exists(hostInterface string) (bool, error)
	Check(podnet.Spec) error
	Wired() ([]podnet.Wired, error)
}

// Status tells what is in the kernel; felix/status implements it.
type Status interface {
	WaitEndpoint(ctx context.Context, hostInterface string, generation uint64) error
	WaitGone(ctx context.Context, hostInterface string) error
	Ready() error
}

// Box takes the events; felix/event/mailbox implements it.
type Box interface {
	Post(...event.Event)
	Synced(event.Source)
}

// Directory knows what the API server says of pods; felix/agent implements it.
type Directory interface {
	// Lookup waits a moment for a pod that is not known yet. With a uid, a pod of
	// the name with another one is not the pod.
	Lookup(ctx context.Context, namespace, pod string, uid event.UID) Listing
	// Floating says why a pod of this node does not get one of these floating
	// addresses; nil: it gets all.
	Floating(namespace, pod string, addrs []netip.Addr) error
}

// Listing is what the API server says of a pod and its namespace. What nobody
// could tell is not Known: then the annotations are empty, and may not be.
type Listing struct {
	Pod, Namespace           map[string]string // annotations
	PodKnown, NamespaceKnown bool
	Labels                   selector.Labels // of the namespace
}

// Config is what a Server needs; every field but Chain is required.
type Config struct {
	RunDir    string     // holds the socket and the tombstones
	MTU       func() int // bytes, that pods' interfaces are to have; it waits for nothing
	Chain     []string   // plugins that run after ours; may be nil
	Allocator Allocator
	Journal   Journal
	Wirer     Wirer
	Directory Directory
	Status    Status
	Box       Box
	Log       *slog.Logger
}

// Server answers requests. Make it with New.
type Server struct {
	Config
	pods   locks // one request at a time for each host interface
	reaper reaper
	mtu    atomic.Int64 // that all pods were given last; 0: none yet

	settled sync.Once              // marks the source CNI as synced
	missing map[ipam.Handle]uint64 // generations without a veth at the last Collect
}

// New returns a Server.
func New(c Config) *Server {
	return &Server{Config: c, reaper: newReaper()}
}

// FollowMTU gives running pods the MTU that new ones get, and returns it. It is
// called from time to time, and does nothing while nothing changed.
func (s *Server) FollowMTU() (mtu int, err error) {
	mtu = s.MTU()
	before := s.mtu.Swap(int64(mtu))
	if before == int64(mtu) {
		return mtu, nil
	}
	s.Log.Info("MTU of pods", "bytes", mtu, "before", before)
	var errs []error
	for h := range s.attachments() {
		errs = append(errs, s.resize(h))
	}
	return mtu, errors.Join(errs...)
}

// attachments returns those of pods: the node's own addresses in tunnels are in the
// same journal.
func (s *Server) attachments() map[ipam.Handle]journal.Attachment {
	all := s.Journal.State().Attachments
	maps.DeleteFunc(all, func(h ipam.Handle, _ journal.Attachment) bool { return h.OfTunnel() })
	return all
}

// resize gives the pod of h the MTU that holds now.
func (s *Server) resize(h ipam.Handle) error {
	defer s.pods.lock(desired.HostInterface(h.Namespace, h.Pod))()
	at, known := s.Journal.Find(h)
	if !known {
		return nil
	}
	return s.Wirer.SetMTU(s.spec(at, at.Netns, at.Handle.Interface))
}

// spec says how at is attached to iface in the namespace at path netns.
func (s *Server) spec(at journal.Attachment, netns, iface string) podnet.Spec {
	mac, _ := net.ParseMAC(at.MAC) // empty, or as it was written by us
	return podnet.Spec{
		Netns: netns, Interface: iface, HostInterface: at.HostInterface, Addrs: at.Addrs, MTU: s.MTU(), MAC: mac,
	}
}

// Recover posts the attachments that the journal knows, after removing those
// whose veth is gone (the node was rebooted) or whose DEL came while no agent
// ran, and marks the source CNI as synced. If the kernel has attachments that
// the journal lacks, it is Adopt that marks it: before nothing may be removed.
// Call it once, before Run.
func (s *Server) Recover() error {
	s.replayTombstones()
	wired, err := s.Wirer.Wired()
	if err != nil {
		return err
	}
	var errs []error
	for h, at := range s.attachments() {
		ok, err := s.Wirer.Exists(at.HostInterface)
		switch {
		case err != nil:
			errs = append(errs, err)
		case !ok && h.Adopted(): // the API may know better: Collect asks it
		case !ok:
			errs = append(errs, s.forget(at))
		case s.current(at):
			s.post(at)
		}
	}
	if n := len(s.unknown(wired)); n > 0 {
		s.Log.Warn("pods run that the journal does not know: they are adopted when the API server has told their names", "pods", n)
	} else {
		s.settle()
	}
	return errors.Join(errs...)
}

// Run listens until ctx ends. The socket is for root alone.
func (s *Server) Run(ctx context.Context) error {
	path := filepath.Join(s.RunDir, filepath.Base(wire.DefaultSocket))
	if err := os.MkdirAll(s.RunDir, 0o755); err != nil {
		return fmt.Errorf("CNI socket: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("CNI socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("CNI socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return fmt.Errorf("CNI socket: %w", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(128) // connections and the reaper; more of them wait in the listen queue
	g.Go(func() error {
		s.reaper.run(ctx, s.Wirer.Reap, s.Log)
		return nil
	})
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return g.Wait()
		}
		if err != nil {
			return fmt.Errorf("CNI socket: %w", err)
		}
		g.Go(func() error {
			s.serve(ctx, conn)
			return nil
		})
	}
}

// serve answers one connection. Of a plugin that speaks otherwise, as that of
// another version, it hears nothing, and that plugin acts as without an agent.
func (s *Server) serve(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(addTimeout)) // a unix socket takes deadlines
	var c wire.Call
	err := c.Receive(conn)
	if err == nil {
		printed, failed := s.call(ctx, &c)
		err = wire.SendAnswer(conn, printed, failed)
	}
	if err != nil {
		s.Log.Debug("CNI plugin went away", "error", err)
	}
}

// Reply is what came of a Request.
type Reply struct {
	Error *wire.Error
	Added *Added // ADD only
}

// Added is the result of ADD: everything the CNI result needs.
type Added struct {
	HostInterface string
	HostMAC       string
	PodMAC        string
	MTU           int
	Addrs         []netip.Addr // each as /32 or /128
}

// Handle carries out one request.
func (s *Server) Handle(ctx context.Context, req wire.Request) Reply {
	var added *Added
	var err error
	switch req.Command {
	case wire.Add:
		added, err = s.add(ctx, req)
	case wire.Del:
		err = s.del(req)
	case wire.Check:
		err = s.check(req)
	case wire.Status:
		if e := s.Status.Ready(); e != nil {
			err = &wire.Error{Code: codeNotAvailable, Message: "the agent is not ready", Details: e.Error()}
		}
	case wire.GC:
		err = s.gc(req)
	default:
		err = &wire.Error{Code: types.ErrInvalidEnvironmentVariables, Message: fmt.Sprintf("CNI_COMMAND is %q, expected ADD, DEL, CHECK, STATUS or GC", req.Command)}
	}
	s.Log.Debug("CNI", "command", req.Command, "pod", req.Namespace+"/"+req.Pod, "sandbox", req.ContainerID, "error", err)
	if err != nil {
		return Reply{Error: cniError(err)}
	}
	return Reply{Added: added}
}

// codeNotAvailable is "plugin not available" of STATUS in CNI 1.1.
const codeNotAvailable = 50

// cniError gives err the code that the CNI specification has for it.
func cniError(err error) *wire.Error {
	var e *wire.Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, podnet.ErrNoNetns):
		return &wire.Error{Code: types.ErrInvalidEnvironmentVariables, Message: "CNI_NETNS", Details: err.Error()}
	case errors.Is(err, journal.ErrNotRecorded):
		return &wire.Error{Code: types.ErrIOFailure, Message: "no address changes hands without a record on the node's disk", Details: err.Error()}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, ipam.ErrNoPool), errors.Is(err, ipam.ErrExhausted),
		errors.Is(err, ipam.ErrTaken), errors.Is(err, ipam.ErrRival):
		return &wire.Error{Code: types.ErrTryAgainLater, Message: "try again later", Details: err.Error()}
	}
	return &wire.Error{Code: types.ErrInternal, Message: "korat agent", Details: err.Error()}
}

func (s *Server) settle() { s.settled.Do(func() { s.Box.Synced(event.CNI) }) }

// post posts at. Whose name nobody knows is not connected: no policy can select it.
func (s *Server) post(at journal.Attachment) {
	if at.Handle.Adopted() && at.Handle.Namespace == "" {
		return
	}
	s.Box.Post(event.Set(at.HostInterface, &event.Endpoint{
		Handle: at.Handle, UID: event.ParseUID(at.PodUID), Interface: at.HostInterface,
		Addrs: at.Addrs, Sources: at.Sources, Generation: at.Generation, Rates: desired.Rates{Ingress: at.Ingress, Egress: at.Egress},
	}))
}
