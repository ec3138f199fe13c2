package gobgp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/osrg/gobgp/v4/api"

	"github.com/koratnet/korat/bgp"
)

const (
	defaultHold = 90 * time.Second
	// connectRetry is short: an unanswered SYN costs nothing, and a neighbour that
	// came back should not wait for us.
	connectRetry = 5 * time.Second
	// idleAfterReset is how long a session stays down after we were told to reset it.
	idleAfterReset = 5 * time.Second
	// deferral is how long after a restart a session that is up waits for the
	// others before it is told our paths. We tell only our own, so that nothing is
	// gained by waiting; GoBGP reads 0 as 6 minutes.
	deferral = time.Second
	// multihopTTL is what the kernel gives to iBGP sessions, which cross routers too.
	multihopTTL = 64
	// addPathsMax is how many paths a prefix a peer is told at most.
	addPathsMax = 16
)

// applied is a peer as GoBGP has it.
type applied struct {
	bgp.Peer
	restartTime, longLived time.Duration
	clusterID              netip.Addr
	multihop               bool // routers may lie between; found out once, when the session is set up
	restarting             bool // its first session since we restarted is still to come
}

// setPeers makes the peers be those of c. Peers that go make room first; the
// policy knows a peer before its session begins.
func (s *Speaker) setPeers(ctx context.Context, c bgp.Config) error {
	var errs []error
	want := s.resolve(c)
	for addr, have := range s.peers {
		if _, ok := want[addr]; !ok {
			errs = append(errs, s.removePeer(ctx, have))
		}
	}
	s.learned.setOwn(c)
	changed, err := s.setTerms(ctx, c, want)
	if err != nil {
		return errors.Join(append(errs, err)...) // no session without its policy
	}
	for _, p := range slices.SortedFunc(maps.Values(want), byAddr) {
		errs = append(errs, s.setPeer(ctx, p, changed[p.Addr]))
	}
	return errors.Join(errs...)
}

// resolve gives the unnumbered peers of c the address of the router on their
// link, and leaves those out whose router was not heard of yet.
func (s *Speaker) resolve(c bgp.Config) map[netip.Addr]applied {
	want := make(map[netip.Addr]applied, len(c.Peers))
	var links []string
	for _, p := range c.Peers {
		if p.Interface != "" {
			links = append(links, p.Interface)
		}
	}
	s.routers.listen(links)
	for _, p := range c.Peers {
		if p.Interface != "" {
			if p.Addr, _ = s.routers.of(p.Interface); !p.Addr.IsValid() {
				continue
			}
		}
		want[p.Addr] = applyTo(c, p)
	}
	return want
}

func byAddr(a, b applied) int { return a.Addr.Compare(b.Addr) }

// applyTo is p as c has it.
func applyTo(c bgp.Config, p bgp.Peer) applied {
	out := applied{Peer: p, restartTime: c.RestartTime, longLived: c.LongLived}
	if p.RestartTime != 0 {
		out.restartTime = p.RestartTime
	}
	if p.LongLived != 0 {
		out.longLived = p.LongLived
	}
	if p.ReflectorClient {
		out.clusterID = c.ClusterID
	}
	return out
}

// changes are those of a peer's terms that its routes must go through again.
type changes struct{ in, out bool }

// setTerms puts the policy for peers into force, and returns whose changed.
func (s *Speaker) setTerms(ctx context.Context, c bgp.Config, peers map[netip.Addr]applied) (map[netip.Addr]changes, error) {
	var links map[string][]netip.Prefix
	if usesLinks(c) {
		links = linksHere()
	}
	all, changed := make(map[netip.Addr]terms, len(peers)), map[netip.Addr]changes{}
	for addr, p := range peers {
		t := termsOf(c, p.Peer, links)
		if old, ok := s.policy.terms[addr]; ok {
			changed[addr] = changes{in: !reflect.DeepEqual(old.in, t.in), out: !reflect.DeepEqual(old.out, t.out)}
		}
		all[addr] = t
	}
	return changed, s.policy.set(ctx, all, s.labels.list)
}

func (s *Speaker) setPeer(ctx context.Context, p applied, changed changes) error {
	have, there := s.peers[p.Addr]
	p.multihop, p.restarting = have.multihop, have.restarting
	switch {
	case !there:
		return s.addPeer(ctx, p, activePeer)
	case !have.sameSession(p):
		return errors.Join(s.removePeer(ctx, have), s.addPeer(ctx, p, activePeer))
	}
	if have.Hold != p.Hold || have.Keepalive != p.Keepalive || have.MaxPrefixes != p.MaxPrefixes {
		// Timers are told in the next OPEN; the session stays.
		if _, err := s.srv.UpdatePeer(ctx, &api.UpdatePeerRequest{Peer: s.peerConfig(p)}); err != nil {
			return fmt.Errorf("change %s: %w", p.Name, err)
		}
	}
	if err := s.again(ctx, p.Addr, changed); err != nil {
		return fmt.Errorf("change %s: %w", p.Name, err)
	}
	s.peers[p.Addr] = p
	s.sessions.rename(p.Addr, p.Name)
	return nil
}

// sameSession reports whether a can become b without a new session.
func (a applied) sameSession(b applied) bool {
	a.Name, a.Hold, a.Keepalive, a.MaxPrefixes, a.BFD = b.Name, b.Hold, b.Keepalive, b.MaxPrefixes, b.BFD
	a.Advertise, a.Advertisements, a.Import, a.Export = b.Advertise, b.Advertisements, b.Import, b.Export
	a.NextHop, a.NextHop4, a.NextHop6 = b.NextHop, b.NextHop4, b.NextHop6
	return reflect.DeepEqual(a, b)
}

// start is how a peer begins.
type start bool

const (
	activePeer start = false
	pausedPeer start = true // it is not tried until it is enabled
)

func (s *Speaker) addPeer(ctx context.Context, p applied, how start) error {
	p.multihop = p.Interface == "" && p.ASN != localASN(s.cfg, p.Peer) && !onLink(p.LocalAddr, p.Addr)
	p.restarting = s.restarting && p.restartTime > 0
	s.sessions.add(p.Peer, time.Now())
	config := s.peerConfig(p)
	config.Conf.AdminDown = how == pausedPeer
	if err := s.srv.AddPeer(ctx, &api.AddPeerRequest{Peer: config}); err != nil {
		s.sessions.remove(p.Addr)
		return fmt.Errorf("add %s: %w", p.Name, err)
	}
	s.peers[p.Addr] = p
	return nil
}

func (s *Speaker) removePeer(ctx context.Context, p applied) error {
	s.sessions.remove(p.Addr)
	if p.Password != "" {
		// DeletePeer leaves the password on the listening socket, a change of it does not.
		bare := p
		bare.Password = ""
		if _, err := s.srv.UpdatePeer(ctx, &api.UpdatePeerRequest{Peer: s.peerConfig(bare)}); err != nil {
			return fmt.Errorf("remove the password of %s: %w", p.Name, err)
		}
	}
	if err := s.srv.DeletePeer(ctx, &api.DeletePeerRequest{Address: p.Addr.String()}); err != nil {
		return fmt.Errorf("remove %s: %w", p.Name, err)
	}
	delete(s.peers, p.Addr)
	delete(s.tallies, p.Addr)
	return nil
}

// again takes the routes of a running session through its policy once more.
func (s *Speaker) again(ctx context.Context, addr netip.Addr, c changes) error {
	var d api.ResetPeerRequest_Direction
	switch c {
	case changes{}:
		return nil
	case changes{in: true}:
		d = api.ResetPeerRequest_DIRECTION_IN
	case changes{out: true}:
		d = api.ResetPeerRequest_DIRECTION_OUT
	default:
		d = api.ResetPeerRequest_DIRECTION_BOTH
	}
	return s.srv.ResetPeer(ctx, &api.ResetPeerRequest{Address: addr.String(), Soft: true, Direction: d})
}

// peerConfig is p in GoBGP's words.
func (s *Speaker) peerConfig(p applied) *api.Peer {
	hold := p.Hold
	if hold == 0 {
		hold = defaultHold
	}
	keepalive := p.Keepalive
	if keepalive == 0 {
		keepalive = hold / 3
	}
	graceful := p.restartTime > 0
	out := &api.Peer{
		Conf: &api.PeerConf{
			NeighborAddress: p.Addr.String(), PeerAsn: p.ASN, LocalAsn: p.LocalASN, AuthPassword: string(p.Password),
			AllowOwnAsn: uint32(p.AllowOwnAS), ReplacePeerAsn: p.ReplaceAS,
		},
		Transport: &api.Transport{RemotePort: uint32(p.Port), PassiveMode: p.Passive},
		Timers: &api.Timers{Config: &api.TimersConfig{
			HoldTime:               seconds(hold),
			KeepaliveInterval:      max(1, seconds(keepalive)),
			ConnectRetry:           seconds(connectRetry),
			IdleHoldTimeAfterReset: seconds(idleAfterReset),
		}},
		EbgpMultihop: &api.EbgpMultihop{Enabled: (p.multihop || p.TTL != 0) && p.GTSM == 0, MultihopTtl: multihopTTL},
		GracefulRestart: &api.GracefulRestart{
			Enabled:             graceful,
			RestartTime:         uint32(seconds(p.restartTime)),
			DeferralTime:        uint32(seconds(deferral)),
			NotificationEnabled: graceful,
			LonglivedEnabled:    graceful,
			LocalRestarting:     p.restarting,
		},
	}
	if p.LocalAddr.IsValid() {
		out.Transport.LocalAddress = p.LocalAddr.String()
	}
	if p.TTL != 0 {
		out.EbgpMultihop.MultihopTtl = uint32(p.TTL)
	}
	if p.GTSM != 0 {
		out.TtlSecurity = &api.TtlSecurity{Enabled: true, TtlMin: 256 - uint32(p.GTSM)}
	}
	if p.RemovePrivateAS {
		out.Conf.RemovePrivate = api.RemovePrivate_REMOVE_PRIVATE_ALL
	}
	if p.ReflectorClient {
		out.RouteReflector = &api.RouteReflector{RouteReflectorClient: true, RouteReflectorClusterId: p.clusterID.String()}
	}
	for _, f := range []struct {
		bit bgp.Families
		afi api.Family_Afi
	}{{bgp.IPv4, api.Family_AFI_IP}, {bgp.IPv6, api.Family_AFI_IP6}} {
		if families(p.Peer)&f.bit != 0 {
			out.AfiSafis = append(out.AfiSafis, p.family(&api.Family{Afi: f.afi, Safi: api.Family_SAFI_UNICAST}))
		}
	}
	return out
}

// family is what the session with p does for one address family. Several paths are
// taken unasked: it costs nothing with a neighbour that does not tell them. Long-lived
// restart is offered also when we do not ask for it ourselves: the neighbour may,
// and says for how long.
func (p applied) family(f *api.Family) *api.AfiSafi {
	graceful := p.restartTime > 0
	out := &api.AfiSafi{
		Config:            &api.AfiSafiConfig{Family: f, Enabled: true},
		MpGracefulRestart: &api.MpGracefulRestart{Config: &api.MpGracefulRestartConfig{Enabled: graceful}},
		LongLivedGracefulRestart: &api.LongLivedGracefulRestart{Config: &api.LongLivedGracefulRestartConfig{
			Enabled: graceful, RestartTime: uint32(seconds(p.longLived)),
		}},
		PrefixLimits: &api.PrefixLimit{Family: f, MaxPrefixes: p.MaxPrefixes},
		AddPaths:     &api.AddPaths{Config: &api.AddPathsConfig{Receive: !p.OnePath}},
	}
	if p.AddPaths && !p.OnePath {
		out.AddPaths.Config.SendMax = addPathsMax
	}
	return out
}

func seconds(d time.Duration) uint64 { return uint64(d / time.Second) }

// onLink reports whether peer is in a subnet of this node that local is an
// address of, so that no router lies between. When the addresses of the node
// cannot be read a router is assumed: that session works in both cases.
func onLink(local, peer netip.Addr) bool {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, a := range addrs {
		subnet, err := netip.ParsePrefix(a.String())
		if err == nil && subnet.Contains(peer.WithZone("")) && (subnet.Addr() == local.WithZone("") || local.IsLoopback()) {
			return true
		}
	}
	return false
}
