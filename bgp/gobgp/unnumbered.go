package gobgp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/ipv6"
)

const (
	// advertiseEvery is how often we tell the link that we are there: routers that
	// speak without addresses themselves, such as FRR, find their peer by it.
	advertiseEvery = 5 * time.Second
	// answerEvery bounds what a link full of solicitations makes us say.
	answerEvery = 500 * time.Millisecond
	// routerSilence is after which a router's place is given to another one.
	routerSilence = 60 * time.Second
	openAgain     = 2 * time.Second
)

// routers finds those that advertise themselves, by link (RFC 4861).
type routers struct {
	log   *slog.Logger
	found func() // called without locks held when of has a new answer

	mu    sync.Mutex // guards links
	links map[string]*link
}

type link struct {
	stop   context.CancelFunc
	router netip.Addr // zero: none was heard of
	heard  time.Time
	err    string // why nothing can be heard
}

func newRouters(log *slog.Logger, found func()) *routers {
	return &routers{log: log, found: found, links: map[string]*link{}}
}

// of returns the address of the router on a link, with the link as its zone, or
// why there is none.
func (r *routers) of(name string) (netip.Addr, string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l, ok := r.links[name]
	switch {
	case ok && l.router.IsValid():
		return l.router, ""
	case ok && l.err != "":
		return netip.Addr{}, l.err
	default:
		return netip.Addr{}, "no router has advertised itself on " + name
	}
}

// Unnumbered returns the addresses of those unnumbered peers whose router was heard
// on their link, by Peer.Name.
func (s *Speaker) Unnumbered() map[string]netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]netip.Addr{}
	for _, p := range s.cfg.Peers {
		if p.Interface == "" {
			continue
		}
		if addr, _ := s.routers.of(p.Interface); addr.IsValid() {
			out[p.Name] = addr
		}
	}
	return out
}

// listen listens on exactly these links.
func (r *routers) listen(names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, l := range r.links {
		if !slices.Contains(names, name) {
			l.stop()
			delete(r.links, name)
		}
	}
	for _, name := range names {
		if r.links[name] == nil {
			ctx, cancel := context.WithCancel(context.Background())
			r.links[name] = &link{stop: cancel}
			go r.run(ctx, name) // ends with listen of other links
		}
	}
}

// run listens on one link until ctx ends. The link may come later than the
// configuration, and may go and come.
func (r *routers) run(ctx context.Context, name string) {
	for ctx.Err() == nil {
		err := r.watch(ctx, name)
		if ctx.Err() != nil {
			return
		}
		r.failed(ctx, name, err)
		select {
		case <-ctx.Done():
		case <-time.After(openAgain):
		}
	}
}

func (r *routers) failed(ctx context.Context, name string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l, ok := r.links[name]; ok && ctx.Err() == nil {
		l.err = err.Error()
		r.log.Debug("listen for routers", "link", name, "error", err)
	}
}

// watch listens on the link, asks for routers, and advertises this node.
func (r *routers) watch(ctx context.Context, name string) error {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", name, err)
	}
	raw, err := net.ListenPacket("ip6:ipv6-icmp", "::%"+name)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", name, err)
	}
	defer raw.Close()
	conn := ipv6.NewPacketConn(raw)
	if err := prepare(conn, ifi); err != nil {
		return fmt.Errorf("listen on %s: %w", name, err)
	}
	defer context.AfterFunc(ctx, func() { raw.Close() })()
	r.failed(ctx, name, fmt.Errorf("no router has advertised itself on %s", name))
	var last time.Time // advertised
	next := time.Now()
	buf := make([]byte, 1500)
	for ctx.Err() == nil {
		if !time.Now().Before(next) {
			if err := announceNode(conn, ifi, r.known(name)); err != nil {
				return fmt.Errorf("advertise on %s: %w", name, err)
			}
			last = time.Now()
			next = last.Add(advertiseEvery)
		}
		if err := conn.SetReadDeadline(next); err != nil {
			return fmt.Errorf("listen on %s: %w", name, err)
		}
		n, from, source, err := conn.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if err != nil {
			return fmt.Errorf("listen on %s: %w", name, err)
		}
		addr, ok := router(buf[:n], from, source, ifi)
		switch {
		case ok:
			r.heardOf(ctx, name, addr)
		case fromLink(buf[:n], routerSolicitation, from, ifi):
			next = last.Add(answerEvery) // it gets its answer now, or soon
		}
	}
	return ctx.Err()
}

const (
	routerSolicitation  = 133
	routerAdvertisement = 134
	// hopLimit shows that a packet was sent on this link.
	hopLimit = 255
)

func prepare(conn *ipv6.PacketConn, ifi *net.Interface) error {
	var f ipv6.ICMPFilter
	f.SetAll(true)
	f.Accept(ipv6.ICMPTypeRouterAdvertisement)
	f.Accept(ipv6.ICMPTypeRouterSolicitation)
	for _, err := range []error{
		conn.SetICMPFilter(&f),
		conn.SetControlMessage(ipv6.FlagHopLimit|ipv6.FlagInterface, true),
		conn.SetMulticastHopLimit(hopLimit),
		conn.SetMulticastInterface(ifi),
		conn.SetMulticastLoopback(false),
		conn.JoinGroup(ifi, &net.IPAddr{IP: net.IPv6linklocalallrouters}),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

// router returns the address of the router that sent the advertisement b.
func router(b []byte, c *ipv6.ControlMessage, source net.Addr, ifi *net.Interface) (netip.Addr, bool) {
	const shortest = 16
	if len(b) < shortest || !fromLink(b, routerAdvertisement, c, ifi) {
		return netip.Addr{}, false
	}
	ip, ok := source.(*net.IPAddr)
	if !ok {
		return netip.Addr{}, false
	}
	addr, ok := netip.AddrFromSlice(ip.IP)
	return addr.WithZone(ifi.Name), ok && addr.IsLinkLocalUnicast()
}

// fromLink reports whether b is of that type, and no router brought it here.
func fromLink(b []byte, kind byte, c *ipv6.ControlMessage, ifi *net.Interface) bool {
	const shortest = 8
	return len(b) >= shortest && b[0] == kind && b[1] == 0 && c != nil && c.HopLimit == hopLimit && c.IfIndex == ifi.Index
}

func (r *routers) known(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	l, ok := r.links[name]
	return ok && l.router.IsValid()
}

func (r *routers) heardOf(ctx context.Context, name string, addr netip.Addr) {
	r.mu.Lock()
	l, ok := r.links[name]
	if !ok || ctx.Err() != nil {
		r.mu.Unlock()
		return
	}
	now := time.Now()
	fresh := l.router != addr && (!l.router.IsValid() || now.Sub(l.heard) > routerSilence)
	if fresh {
		l.router, l.err = addr, ""
	}
	if l.router == addr {
		l.heard = now
	}
	r.mu.Unlock()
	if fresh {
		r.found()
	}
}

// announceNode says that this node is on the link, as a router that nobody should
// send to by default, and asks for routers while none is known.
func announceNode(conn *ipv6.PacketConn, ifi *net.Interface, known bool) error {
	advertisement := make([]byte, 16)
	advertisement[0] = routerAdvertisement
	source := linkLayerOption(ifi)
	if _, err := conn.WriteTo(append(advertisement, source...), nil, &net.IPAddr{IP: net.IPv6linklocalallnodes, Zone: ifi.Name}); err != nil {
		return err
	}
	if known {
		return nil
	}
	solicitation := make([]byte, 8)
	solicitation[0] = routerSolicitation
	_, err := conn.WriteTo(append(solicitation, source...), nil, &net.IPAddr{IP: net.IPv6linklocalallrouters, Zone: ifi.Name})
	return err
}

// linkLayerOption is the option that saves the neighbour a question.
func linkLayerOption(ifi *net.Interface) []byte {
	const ethernet = 6
	if len(ifi.HardwareAddr) != ethernet {
		return nil
	}
	return append([]byte{1, 1}, ifi.HardwareAddr...)
}
