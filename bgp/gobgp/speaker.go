package gobgp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/bits"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/server"

	"github.com/koratnet/korat/bgp"
)

// Options are what a Speaker needs from its process.
type Options struct {
	// Log gets life events of sessions at Info, and GoBGP's own words below that.
	Log *slog.Logger
	// Restarted: the kernel still forwards by the routes of an earlier run of this
	// process. The first sessions then say so (RFC 4724, R and F bit), which makes
	// neighbours keep what they know of us until our End-of-RIB. It must be false
	// after a reboot.
	Restarted bool
}

// Speaker is this node's BGP speaker. It is silent before the first Configure.
// All methods may be called by several goroutines.
type Speaker struct {
	log      *slog.Logger
	learned  *learned
	sessions *sessions
	routers  *routers

	mu         sync.Mutex // guards the rest; held during calls to GoBGP, so changes come one after another
	cfg        bgp.Config // the last one; of it, srv has ASN, RouterID and ListenPort
	srv        *server.BgpServer
	off        *atomic.Bool // of srv: it is being stopped, what it still says is not news
	unwatch    context.CancelFunc
	policy     policy // of srv
	peers      map[netip.Addr]applied
	paths      map[netip.Prefix]said
	labels     labels
	tallies    map[netip.Addr]tally
	chores     *chores                   // of srv
	held       map[netip.Prefix]struct{} // withdrawn, but GoBGP is not told before quietUntil
	quietUntil time.Time
	changed    time.Time // last, of paths
	withdrawn  map[netip.Prefix]withdrawal
	restarting bool // the first peers are still to come, and Options.Restarted
}

// New returns a silent Speaker.
func New(o Options) *Speaker {
	s := &Speaker{
		log:        o.Log,
		learned:    newLearned(),
		sessions:   newSessions(o.Log),
		peers:      map[netip.Addr]applied{},
		paths:      map[netip.Prefix]said{},
		tallies:    map[netip.Addr]tally{},
		held:       map[netip.Prefix]struct{}{},
		withdrawn:  map[netip.Prefix]withdrawal{},
		restarting: o.Restarted,
	}
	s.routers = newRouters(o.Log, s.callRouters)
	return s
}

// callRouters sets up the peers that became known by the router on their link.
func (s *Speaker) callRouters() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.srv == nil {
		return
	}
	s.chores.add(func(ctx context.Context) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.srv == nil || ctx.Err() != nil {
			return
		}
		if err := s.setPeers(ctx, s.cfg); err != nil {
			s.log.Warn("set up bgp peers", "error", err)
		}
	})
}

// Configure makes the speaker speak as c says, changing only what differs. A
// change of AS number, router ID or port resets all sessions, a change of one
// peer at most its own. After an error what could be done is done; the same call
// tries the rest again.
func (s *Speaker) Configure(ctx context.Context, c bgp.Config) error {
	if err := check(c); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.learned.expect(c, time.Now())
	if s.srv != nil && !sameServer(s.cfg, c) {
		if err := s.stop(ctx); err != nil {
			return err
		}
		s.learned.clear()
	}
	if c.ASN == 0 {
		return nil
	}
	if s.srv == nil {
		if err := s.start(ctx, c); err != nil {
			return err
		}
	}
	s.cfg = c
	err := s.setPeers(ctx, c)
	s.restarting = s.restarting && len(c.Peers) == 0
	return err
}

// Close ends all sessions and the speaker. Where graceful restart was agreed the
// connection is closed without NOTIFICATION: the neighbour keeps our routes for
// the restart time. Learned does not hear of what is lost by it.
func (s *Speaker) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.srv == nil {
		return nil
	}
	return s.stop(context.Background())
}

// Announce originates paths. A path that is announced already is no change.
func (s *Speaker) Announce(ctx context.Context, paths []bgp.Path) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	change := map[netip.Prefix]said{}
	var errs []error
	for _, p := range paths {
		if err := checkPath(p); err != nil {
			errs = append(errs, err)
			continue
		}
		change[p.Prefix] = s.soFar(change, p.Prefix).with(p)
	}
	return errors.Join(append(errs, s.originate(ctx, change))...)
}

// Withdraw ends the origination of paths. A path that is not announced is no
// error.
func (s *Speaker) Withdraw(ctx context.Context, paths []bgp.Path) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	change := map[netip.Prefix]said{}
	for _, p := range paths {
		change[p.Prefix] = s.soFar(change, p.Prefix).without(p)
	}
	return s.originate(ctx, change)
}

// soFar returns what prefix is to be originated as after the changes so far.
func (s *Speaker) soFar(change map[netip.Prefix]said, prefix netip.Prefix) said {
	if k, ok := change[prefix]; ok {
		return k
	}
	return s.paths[prefix]
}

// Learned calls fn with what the neighbours say, first with all of it, then with
// what changed, until ctx ends. While fn works changes coalesce: per prefix only
// the last state is told. synced is false until every neighbour of the first
// Configure has told all it knows (End-of-RIB), is gone from the configuration,
// or has had the restart time to do so; from then on it stays true. fn is called
// by the caller's goroutine; there may be one call of Learned at a time.
func (s *Speaker) Learned(ctx context.Context, fn func(changed []bgp.Learned, synced bool)) error {
	return s.learned.run(ctx, fn)
}

func (s *Speaker) start(ctx context.Context, c bgp.Config) error {
	off := new(atomic.Bool)
	srv := server.NewBgpServer(server.LoggerOption(slog.New(newLogHandler(s.log, s.sessions, off)), nil))
	go srv.Serve() // ends with StopBgp, which waits for it
	err := srv.StartBgp(ctx, &api.StartBgpRequest{Global: &api.Global{
		Asn:              c.ASN,
		RouterId:         c.RouterID.String(),
		ListenPort:       int32(c.ListenPort),
		ListenAddresses:  listenAddresses(),
		Families:         []uint32{familyIPv4, familyIPv6},
		UseMultiplePaths: true,
	}})
	policy := policy{srv: srv}
	if err == nil {
		err = policy.set(ctx, nil, s.labels.list)
	}
	if err != nil {
		srv.Stop()
		return fmt.Errorf("bgp speaker on port %d: %w", c.ListenPort, err)
	}
	s.srv, s.off, s.cfg, s.policy = srv, off, c, policy
	watch, cancel := context.WithCancel(context.Background())
	s.unwatch, s.chores = cancel, newChores()
	go s.chores.run(watch)
	if err := s.watch(watch, srv, off); err != nil {
		return errors.Join(fmt.Errorf("bgp events: %w", err), s.stop(ctx))
	}
	if err := addPaths(srv, s.paths, s.prefs(s.paths)); err != nil {
		return errors.Join(err, s.stop(ctx))
	}
	return nil
}

// stop leaves the learned paths as they are; s.paths stays for the next start.
func (s *Speaker) stop(ctx context.Context) error {
	s.off.Store(true)
	s.unwatch()
	err := s.srv.StopBgp(ctx, &api.StopBgpRequest{AllowGracefulRestart: true})
	s.srv.Stop() // the BFD loop, which StopBgp leaves; nothing else is left to stop
	s.srv = nil
	clear(s.peers)
	clear(s.tallies)
	s.routers.listen(nil)
	clear(s.held)
	clear(s.withdrawn)
	s.quietUntil = time.Time{}
	s.policy = policy{}
	s.sessions.clear()
	if err != nil {
		return fmt.Errorf("stop bgp speaker: %w", err)
	}
	return nil
}

// watch lets GoBGP's events flow into s.learned and s.sessions until ctx ends.
// The events of one server come in order: a neighbour's End-of-RIB after its paths.
func (s *Speaker) watch(ctx context.Context, srv *server.BgpServer, off *atomic.Bool) error {
	work := s.chores
	return srv.WatchEvent(ctx, server.WatchEventMessageCallbacks{
		OnBestPath: func(paths []*apiutil.Path, _ time.Time) {
			if !off.Load() {
				s.learned.update(paths)
			}
		},
		OnPathEor: func(eor *apiutil.Path, _ time.Time) {
			if !off.Load() {
				s.learned.heard(eor.PeerAddress)
			}
		},
		OnPeerUpdate: func(ev *apiutil.WatchEventMessage_PeerEvent, at time.Time) {
			if off.Load() {
				return
			}
			s.sessions.changed(ev, at)
			s.follow(ev, at, work)
			if established(ev) && !restartable(ev.Peer.State.RemoteCap) {
				s.learned.settleSoon(ev.Peer.State.NeighborAddress, at)
			}
		},
	}, server.WatchBestPath(true), server.WatchEor(true), server.WatchPeer())
}

// follow has done what the news of a session asks for.
func (s *Speaker) follow(ev *apiutil.WatchEventMessage_PeerEvent, at time.Time, work *chores) {
	addr := ev.Peer.State.NeighborAddress.Unmap()
	switch {
	case ev.Peer.State.AdminState == api.PeerState_ADMIN_STATE_PFX_CT:
		work.add(func(ctx context.Context) { s.tooMany(ctx, addr) })
	case !established(ev):
	case ev.Peer.Conf.PeerASN == 0 && ev.Peer.State.PeerASN == ev.Peer.State.LocalASN:
		work.add(func(ctx context.Context) { s.ownAS(ctx, addr) })
	default:
		work.add(func(ctx context.Context) { s.sessionUp(ctx, addr, at) })
	}
}

// originate makes each prefix of change be announced so, the zero said meaning
// not at all.
func (s *Speaker) originate(ctx context.Context, change map[netip.Prefix]said) error {
	maps.DeleteFunc(change, func(p netip.Prefix, k said) bool { return s.paths[p] == k })
	add, del := map[netip.Prefix]said{}, []netip.Prefix{}
	for p, k := range change {
		if k == (said{}) {
			del = append(del, p)
		} else {
			add[p] = k
		}
	}
	if len(add)+len(del) == 0 {
		return nil
	}
	s.note(del)
	known := len(s.labels.list)
	prefs := s.prefs(add)
	if s.srv != nil {
		if len(s.labels.list) > known {
			// The policy knows a label before there is a path with it.
			if err := s.policy.set(ctx, s.policy.terms, s.labels.list); err != nil {
				return err
			}
		}
		for p := range add {
			delete(s.held, p)
		}
		if err := errors.Join(addPaths(s.srv, add, prefs), deletePaths(s.srv, s.hold(del))); err != nil {
			return err
		}
	}
	maps.Copy(s.paths, add)
	for _, p := range del {
		delete(s.paths, p)
	}
	return nil
}

// prefs returns the preferences of the labels of paths.
func (s *Speaker) prefs(paths map[netip.Prefix]said) map[label]uint32 {
	out := map[label]uint32{}
	for p, as := range paths {
		k := label{p.Addr().Is4(), as}
		if _, ok := out[k]; !ok {
			out[k] = s.labels.pref(k)
		}
	}
	return out
}

// listenAddresses leaves IPv6 out where the kernel has none: GoBGP would not
// start.
func listenAddresses() []string {
	all := []string{netip.IPv4Unspecified().String()}
	if _, err := os.Stat("/proc/net/if_inet6"); err == nil {
		all = append(all, netip.IPv6Unspecified().String())
	}
	return all
}

func sameServer(a, b bgp.Config) bool {
	return a.ASN == b.ASN && a.RouterID == b.RouterID && a.ListenPort == b.ListenPort
}

// check returns all that is wrong with c.
func check(c bgp.Config) error {
	if c.ASN == 0 {
		return nil
	}
	var errs []error
	if !c.RouterID.Is4() || c.RouterID.IsUnspecified() {
		errs = append(errs, fmt.Errorf("router ID %s: want an IPv4 address", c.RouterID))
	}
	seen := map[where]string{}
	for _, p := range c.Peers {
		w := where{p.Addr, p.Interface}
		if other, ok := seen[w]; ok {
			errs = append(errs, fmt.Errorf("peer %s: address %s is that of %s", p.Name, cmp.Or(p.Interface, p.Addr.String()), other))
		}
		seen[w] = cmp.Or(p.Name, "another peer")
		errs = append(errs, checkPeer(c, p))
	}
	return errors.Join(errs...)
}

// where a peer is.
type where struct {
	addr netip.Addr
	link string
}

func checkPeer(c bgp.Config, p bgp.Peer) error {
	if p.Interface != "" {
		if p.Addr.IsValid() || p.ASN == c.ASN {
			return fmt.Errorf("peer %s: on %s: want no address, and another AS", p.Name, p.Interface)
		}
		return checkTimers(p)
	}
	switch {
	case !p.Addr.IsValid() || p.Addr.IsUnspecified() || p.ASN == 0:
		return fmt.Errorf("peer %s: address %s, AS %d: want both", p.Name, p.Addr, p.ASN)
	case p.LocalAddr.IsValid() && p.LocalAddr.Is4() != p.Addr.Is4() || p.LocalAddr.IsUnspecified():
		return fmt.Errorf("peer %s: local address %s: want one of the family of %s", p.Name, p.LocalAddr, p.Addr)
	case p.LocalAddr.IsLoopback() && !p.Addr.IsLoopback():
		// It would become the next hop of all we say. FRR drops the session for it.
		return fmt.Errorf("peer %s: local address %s: a loopback address is no next hop", p.Name, p.LocalAddr)
	case p.ReflectorClient && (!c.ClusterID.Is4() || p.ASN != localASN(c, p)):
		return fmt.Errorf("peer %s: a reflector's client wants a cluster ID and our AS", p.Name)
	case (p.ReplaceAS || p.RemovePrivateAS) && p.ASN == localASN(c, p):
		return fmt.Errorf("peer %s: AS numbers are replaced and removed only for other ASes", p.Name)
	}
	return checkTimers(p)
}

func checkTimers(p bgp.Peer) error {
	if p.Hold != 0 && p.Hold < 3*time.Second {
		return fmt.Errorf("peer %s: hold time %s: want at least 3s", p.Name, p.Hold)
	}
	return nil
}

func checkPath(p bgp.Path) error {
	if !p.Prefix.IsValid() || p.Prefix != p.Prefix.Masked() || p.Prefix.Addr().Is4In6() {
		return fmt.Errorf("path %s: want a prefix without host bits", p.Prefix)
	}
	if bits.OnesCount8(uint8(p.Kind)) != 1 {
		return fmt.Errorf("path %s: kind %d: want exactly one", p.Prefix, p.Kind)
	}
	return nil
}

func sortedPeers(m map[netip.Addr]applied) []applied {
	return slices.SortedFunc(maps.Values(m), byAddr)
}
