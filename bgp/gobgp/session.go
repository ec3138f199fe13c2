package gobgp

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/koratnet/korat/bgp"
)

// sessions is what GoBGP's events and log lines tell about each session. Why a
// connection could not be made is only in the log.
type sessions struct {
	log *slog.Logger

	mu sync.Mutex // guards m
	m  map[netip.Addr]*session
}

type session struct {
	name  string
	key   bool // the session has a password
	asn   uint32
	state packet.FSMState
	since time.Time // it is established, or is not
	err   string
	erred time.Time // when err was noted from the log
}

func newSessions(log *slog.Logger) *sessions {
	return &sessions{log: log, m: map[netip.Addr]*session{}}
}

func (s *sessions) add(p bgp.Peer, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.m[p.Addr] = &session{name: p.Name, key: p.Password != "", asn: p.ASN, state: packet.BGP_FSM_IDLE, since: now}
}

func (s *sessions) rename(peer netip.Addr, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.m[peer]; ok {
		e.name = name
	}
}

func (s *sessions) remove(peer netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, peer)
}

func (s *sessions) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.m)
}

// failed notes why peer has no session.
func (s *sessions) failed(peer netip.Addr, words string, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.m[peer]
	if !ok || words == "" {
		return
	}
	if words == noAnswer {
		// A host whose password differs does not answer at all (RFC 2385).
		words += ": it is down, a packet filter drops it, or the neighbour wants a password"
		if e.key {
			words = noAnswer + ": bad password suspected"
		}
	}
	e.err, e.erred = words, at
}

// broken notes why the session with peer was ended on purpose.
func (s *sessions) broken(peer netip.Addr, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.m[peer]; ok {
		e.err, e.erred = why, time.Now()
		s.log.Info("bgp session broken", "peer", e.name, "address", peer, "asn", e.asn, "reason", why)
	}
}

// changed takes in that a session has another state.
func (s *sessions) changed(ev *apiutil.WatchEventMessage_PeerEvent, at time.Time) {
	peer := ev.Peer.State.NeighborAddress
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.m[peer.Unmap()]
	if !ok {
		return
	}
	was := e.state
	e.state = ev.Peer.State.SessionState
	up := e.state == packet.BGP_FSM_ESTABLISHED
	switch {
	case up && e.erred.Before(at):
		e.err = ""
	case up:
		// The session is down again already: log lines come at once, events later.
	default:
		known := ""
		if at.Sub(e.erred) < time.Second {
			known = e.err // the log told of the same failure
		}
		e.err = cmp.Or(downWords(ev.Peer.State.DisconnectReason, known), e.err)
	}
	if up == (was == packet.BGP_FSM_ESTABLISHED) {
		return
	}
	e.since = at
	if up {
		s.log.Info("bgp session up", "peer", e.name, "address", peer, "asn", e.asn)
	} else {
		s.log.Info("bgp session down", "peer", e.name, "address", peer, "asn", e.asn, "reason", e.err)
	}
}

// up reports whether the session with peer is established.
func (s *sessions) up(peer netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.m[peer]
	return ok && e.state == packet.BGP_FSM_ESTABLISHED
}

// of fills in what is known of the session with peer. One that just came up counts
// as such when its event was taken in: Since is that of the state before until then.
func (s *sessions) of(out *bgp.Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.m[out.Addr]
	if !ok {
		return
	}
	out.Since, out.LastError = e.since, e.err
	if out.State == stateEstablished && e.state != packet.BGP_FSM_ESTABLISHED {
		out.State = stateOpenConfirm
	}
}

func established(ev *apiutil.WatchEventMessage_PeerEvent) bool {
	return ev.Peer.State.SessionState == packet.BGP_FSM_ESTABLISHED
}

// Established reports whether the session with the peer at addr is up. It waits
// for nothing.
func (s *Speaker) Established(addr netip.Addr) bool { return s.sessions.up(addr) }

// Sessions returns the state of every peer of the last Configure that could be
// set up, ordered by address.
func (s *Speaker) Sessions(ctx context.Context) ([]bgp.Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.srv == nil {
		return nil, nil
	}
	states := make(map[netip.Addr]*api.Peer, len(s.peers))
	err := s.srv.ListPeer(ctx, &api.ListPeerRequest{}, func(p *api.Peer) {
		if addr, err := netip.ParseAddr(p.GetState().GetNeighborAddress()); err == nil {
			states[addr.Unmap()] = p
		}
	})
	if err != nil {
		return nil, fmt.Errorf("bgp sessions: %w", err)
	}
	out := make([]bgp.Session, 0, len(s.peers))
	explain := sync.OnceValue(s.explainer) // it may look at all links
	for _, p := range sortedPeers(s.peers) {
		one, err := s.session(p, states[p.Addr], explain)
		if err != nil {
			return nil, err
		}
		out = append(out, one)
	}
	for _, p := range s.cfg.Peers {
		if p.Interface == "" {
			continue
		}
		if addr, why := s.routers.of(p.Interface); !addr.IsValid() {
			out = append(out, bgp.Session{Peer: p.Name, ASN: p.ASN, State: stateIdle, LastError: why})
		}
	}
	return out, nil
}

func (s *Speaker) session(p applied, now *api.Peer, explain func() explainer) (bgp.Session, error) {
	one := bgp.Session{Peer: p.Name, Addr: p.Addr, ASN: p.ASN, State: stateName(now.GetState().GetSessionState())}
	if one.ASN == 0 {
		one.ASN = now.GetState().GetPeerAsn()
	}
	s.sessions.of(&one)
	if one.State != stateEstablished {
		return one, nil
	}
	one.Established, one.LastError = true, ""
	for _, f := range now.GetAfiSafis() {
		// A loop does not count: a router that tells us our own paths again, as FRR does.
		one.Received += int(f.GetState().GetAccepted())
	}
	one.Advertised = s.advertised(p, explain)
	var err error
	one.Accepted, err = s.accepted(p, now.GetState(), one.Received, explain)
	return one, err
}

// advertised counts what p is told. Of a reflector's filters for what others said
// it knows nothing: to ask GoBGP would send all its paths through the policy.
func (s *Speaker) advertised(p applied, explain func() explainer) int {
	t := s.policy.terms[p.Addr].out
	n, told := 0, map[label]bool{}
	for prefix, as := range s.paths {
		k := label{prefix.Addr().Is4(), as}
		yes, known := told[k]
		if !known {
			_, yes = t.tells(k)
			told[k] = yes
		}
		if yes && len(p.Export) > 0 {
			a, _ := t.tells(k)
			yes = explain().keptBack(p.Peer, bgp.Route{Prefix: prefix, Communities: a.Communities, LargeCommunities: a.LargeCommunities}, true) == ""
		}
		if yes {
			n++
		}
	}
	if t.Reflects {
		n += s.learned.toldOn(p, families(p.Peer))
	}
	return n
}

const (
	stateEstablished = "Established"
	stateOpenConfirm = "OpenConfirm"
	stateIdle        = "Idle"
)

func stateName(s api.PeerState_SessionState) string {
	switch s {
	case api.PeerState_SESSION_STATE_CONNECT:
		return "Connect"
	case api.PeerState_SESSION_STATE_ACTIVE:
		return "Active"
	case api.PeerState_SESSION_STATE_OPENSENT:
		return "OpenSent"
	case api.PeerState_SESSION_STATE_OPENCONFIRM:
		return stateOpenConfirm
	case api.PeerState_SESSION_STATE_ESTABLISHED:
		return stateEstablished
	default:
		return stateIdle
	}
}

// Break ends the session with the peer at addr without keeping what it said.
// GoBGP has no word for it but to forget the peer: the neighbour gets a
// NOTIFICATION, if it still hears, and the session is set up from the beginning.
func (s *Speaker) Break(ctx context.Context, addr netip.Addr, why string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.peers[addr]
	if !ok || s.srv == nil {
		return nil
	}
	if err := s.removePeer(ctx, p); err != nil {
		return err
	}
	if err := s.addPeer(ctx, p, activePeer); err != nil {
		return err
	}
	s.sessions.broken(addr, why)
	return nil
}
