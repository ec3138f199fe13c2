package gobgp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
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
)

// applied is a peer as GoBGP has it.
type applied struct {
	bgp.Peer
	restartTime time.Duration
	multihop    bool // routers may lie between; found out once, when the session is set up
}

// setPeers makes the peers be those of c. Peers that go make room first.
func (s *Speaker) setPeers(ctx context.Context, c bgp.Config) error {
	var errs []error
	want := make(map[netip.Addr]bgp.Peer, len(c.Peers))
	for _, p := range c.Peers {
		want[p.Addr] = p
	}
	for addr, have := range s.peers {
		if _, ok := want[addr]; !ok {
			errs = append(errs, s.removePeer(ctx, have))
		}
	}
	s.learned.setOwn(c.Peers)
	for _, p := range c.Peers {
		errs = append(errs, s.setPeer(ctx, applied{Peer: p, restartTime: c.RestartTime}))
	}
	return errors.Join(errs...)
}

func (s *Speaker) setPeer(ctx context.Context, p applied) error {
	have, there := s.peers[p.Addr]
	p.multihop = have.multihop
	switch {
	case !there:
		return s.addPeer(ctx, p)
	case reflect.DeepEqual(have, p):
		return nil
	case !have.sameSession(p):
		return errors.Join(s.removePeer(ctx, have), s.addPeer(ctx, p))
	}
	if have.Hold != p.Hold || have.Keepalive != p.Keepalive {
		// Told in the next OPEN; the session stays.
		if _, err := s.srv.UpdatePeer(ctx, &api.UpdatePeerRequest{Peer: s.peerConfig(p)}); err != nil {
			return fmt.Errorf("change %s: %w", p.Name, err)
		}
	}
	if have.Advertise != p.Advertise {
		if err := s.retell(ctx, have, p.Advertise); err != nil {
			return fmt.Errorf("change %s: %w", p.Name, err)
		}
	}
	s.peers[p.Addr] = p
	s.sessions.rename(p.Addr, p.Name)
	return nil
}

// sameSession reports whether a can become b without a new session.
func (a applied) sameSession(b applied) bool {
	a.Name, a.Advertise, a.Hold, a.Keepalive = b.Name, b.Advertise, b.Hold, b.Keepalive
	return reflect.DeepEqual(a, b)
}

func (s *Speaker) addPeer(ctx context.Context, p applied) error {
	p.multihop = p.ASN != s.cfg.ASN && !onLink(p.LocalAddr, p.Addr)
	// First the sets: a peer that is not in them is told blocks.
	if err := tellPeer(ctx, s.srv, p.Addr, bgp.Blocks, p.Advertise); err != nil {
		return fmt.Errorf("add %s: %w", p.Name, err)
	}
	s.sessions.add(p.Peer, time.Now())
	if err := s.srv.AddPeer(ctx, &api.AddPeerRequest{Peer: s.peerConfig(p)}); err != nil {
		s.sessions.remove(p.Addr)
		return errors.Join(fmt.Errorf("add %s: %w", p.Name, err), tellPeer(ctx, s.srv, p.Addr, p.Advertise, bgp.Blocks))
	}
	s.peers[p.Addr] = p
	return nil
}

func (s *Speaker) removePeer(ctx context.Context, p applied) error {
	s.sessions.remove(p.Addr)
	if err := s.srv.DeletePeer(ctx, &api.DeletePeerRequest{Address: p.Addr.String()}); err != nil {
		return fmt.Errorf("remove %s: %w", p.Name, err)
	}
	delete(s.peers, p.Addr)
	return tellPeer(ctx, s.srv, p.Addr, p.Advertise, bgp.Blocks)
}

// retell changes what a peer is told, on the running session.
func (s *Speaker) retell(ctx context.Context, p applied, what bgp.Advertise) error {
	if err := tellPeer(ctx, s.srv, p.Addr, p.Advertise, what); err != nil {
		return err
	}
	return s.srv.ResetPeer(ctx, &api.ResetPeerRequest{
		Address: p.Addr.String(), Soft: true, Direction: api.ResetPeerRequest_DIRECTION_OUT,
	})
}

// peerConfig is p in GoBGP's words. A session carries the family of its
// addresses: the next hop of what we originate is the local one.
func (s *Speaker) peerConfig(p applied) *api.Peer {
	family := &api.Family{Afi: api.Family_AFI_IP6, Safi: api.Family_SAFI_UNICAST}
	if p.Addr.Is4() {
		family.Afi = api.Family_AFI_IP
	}
	hold := p.Hold
	if hold == 0 {
		hold = defaultHold
	}
	keepalive := p.Keepalive
	if keepalive == 0 {
		keepalive = hold / 3
	}
	graceful := p.restartTime > 0
	return &api.Peer{
		Conf: &api.PeerConf{NeighborAddress: p.Addr.String(), PeerAsn: p.ASN, Description: p.Name},
		Transport: &api.Transport{
			LocalAddress: p.LocalAddr.String(), RemotePort: uint32(p.Port), PassiveMode: p.Passive,
		},
		Timers: &api.Timers{Config: &api.TimersConfig{
			HoldTime:               seconds(hold),
			KeepaliveInterval:      max(1, seconds(keepalive)),
			ConnectRetry:           seconds(connectRetry),
			IdleHoldTimeAfterReset: seconds(idleAfterReset),
		}},
		EbgpMultihop: &api.EbgpMultihop{Enabled: p.multihop, MultihopTtl: multihopTTL},
		GracefulRestart: &api.GracefulRestart{
			Enabled:             graceful,
			RestartTime:         uint32(seconds(p.restartTime)),
			DeferralTime:        uint32(seconds(deferral)),
			NotificationEnabled: graceful,
			LocalRestarting:     graceful && s.restarting,
		},
		AfiSafis: []*api.AfiSafi{{
			Config:            &api.AfiSafiConfig{Family: family, Enabled: true},
			MpGracefulRestart: &api.MpGracefulRestart{Config: &api.MpGracefulRestartConfig{Enabled: graceful}},
		}},
	}
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
