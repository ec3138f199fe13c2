// Package report writes what the agent knows about its node to the API: the
// status of its NodeNetwork and of its Blocks, and that it lives. It coalesces: however much
// happens on the node, each object is written at most once in Interval, and not
// at all when nothing changed.
package report

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/bgp"
	"github.com/koratnet/korat/felix/pathmtu"
	"github.com/koratnet/korat/felix/status"
)

// Interval is the shortest time between two writes of one object.
const Interval = 5 * time.Second

// Facts are what there is to tell about the node.
type Facts struct {
	Addresses  []netip.Prefix // what it speaks BGP from, with the length of the subnet
	ASN        uint32
	Draining   bool   // traffic is led away
	Version    string // of the agent
	Endpoints  int
	Blocks     int
	Sessions   []bgp.Session // in the order of their addresses
	Policies   []koratv1.NodePolicyStatus
	Hosts      []koratv1.NodeHostEndpointStatus
	Tunnels    []koratv1.TunnelStatus
	Pools      []koratv1.NodePoolStatus
	Ways       []koratv1.NodeWayStatus
	WireGuard  []koratv1.WireGuardStatus // nil: not known yet, what was said before holds
	Encryption *Encryption               // nil: nothing asks for it
	MTU        int                       // of pods
	Overhead   int                       // what encapsulation adds to their packets, at most
	PathMTU    pathmtu.Summary
	LeftOut    int   // policies that are not among these
	Starting   bool  // not everything has been read yet
	Problem    error // why the node is not ready; nil while it is

	Enforcement status.Enforcement
}

// Encryption is which other nodes are not reached encrypted, by name: not at all,
// because it is required, and in clear, because it is not. Broken are interfaces of
// this node that do not work, each with the reason.
type Encryption struct {
	Closed, Clear, Broken []string
	// Exposed are the addresses of nodes to which the node itself sends in clear although
	// it is to encrypt that, and Why is what keeps it from doing so, "" for no proof that
	// they are reached.
	Exposed []netip.Addr
	Why     string
}

// Config is what a Reporter needs; every field is required.
type Config struct {
	Client rest.Interface // of group korat.dev/v1
	Core   rest.Interface // of group v1, for Events
	Leases rest.Interface // of group coordination.k8s.io/v1
	Node   string
	Facts  func(context.Context) Facts
	// Blocks publishes the node's blocks, each at most once in Interval.
	Blocks func(context.Context) error
	Log    *slog.Logger
}

// Reporter is made with New and runs once.
type Reporter struct {
	Config
	last  *koratv1.NodeNetwork // as the API server has it, as far as known
	heart heart
	teller
}

// New returns a Reporter.
func New(c Config) *Reporter {
	return &Reporter{Config: c, heart: heart{client: c.Leases, node: c.Node}, teller: teller{client: c.Core}}
}

// Run reports until ctx ends. An API server that is away is tried again every
// Interval; the newest state is what it gets.
func (r *Reporter) Run(ctx context.Context) error {
	tick := time.NewTicker(Interval)
	defer tick.Stop()
	for {
		once, cancel := context.WithTimeout(ctx, Interval)
		err := errors.Join(r.live(once), r.node(once), r.Blocks(once))
		cancel()
		if err != nil && ctx.Err() == nil {
			r.Log.Warn("status is not reported", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// node writes the NodeNetwork's status if it changed.
func (r *Reporter) node(ctx context.Context) error {
	if r.last == nil {
		if err := r.fetch(ctx); err != nil {
			return fmt.Errorf("NodeNetwork %s: %w", r.Node, err)
		}
	}
	next, now := r.last.DeepCopy(), time.Now()
	fill(&next.Status, r.Facts(ctx), metav1.NewTime(now))
	if equality.Semantic.DeepEqual(r.last.Status, next.Status) {
		return r.tell(ctx, next, now)
	}
	err := r.Client.Put().Resource("nodenetworks").Name(r.Node).SubResource("status").Body(next).Do(ctx).Into(next)
	if err != nil {
		r.last = nil // changed by somebody else, or gone: read it again
		return fmt.Errorf("status of NodeNetwork %s: %w", r.Node, err)
	}
	was := r.last.Status
	r.last = next
	return errors.Join(r.tell(ctx, next, now), r.tellPath(ctx, was.Conditions, next, now), r.tellOffload(ctx, was.Tunnels, next, now))
}

// live shows that the agent lives, and then reads the NodeNetwork anew: if the
// controller held it for dead and wrote so, that is mended now.
func (r *Reporter) live(ctx context.Context) error {
	if !r.heart.due(time.Now()) {
		return nil
	}
	if err := r.fetch(ctx); err != nil {
		return fmt.Errorf("NodeNetwork %s: %w", r.Node, err)
	}
	return r.heart.beat(ctx, r.last, time.Now())
}

// fetch reads the NodeNetwork, or makes it.
func (r *Reporter) fetch(ctx context.Context) error {
	obj := &koratv1.NodeNetwork{}
	err := r.Client.Get().Resource("nodenetworks").Name(r.Node).Do(ctx).Into(obj)
	if apierrors.IsNotFound(err) {
		obj = &koratv1.NodeNetwork{ObjectMeta: metav1.ObjectMeta{Name: r.Node}}
		err = r.Client.Post().Resource("nodenetworks").Body(obj).Do(ctx).Into(obj)
	}
	if err != nil {
		return err
	}
	r.last = obj
	return nil
}

// fill makes s say what f says. Conditions keep the time of their last change.
func fill(s *koratv1.NodeNetworkStatus, f Facts, now metav1.Time) {
	s.Addresses = nil
	for _, a := range f.Addresses {
		s.Addresses = append(s.Addresses, a.String())
	}
	s.ASNumber, s.Backend, s.AgentVersion = koratv1.ASNumber(f.ASN), backends(f.Enforcement), f.Version
	s.Endpoints, s.Blocks = int32(f.Endpoints), int32(f.Blocks)

	s.Draining = f.Draining

	up, down := 0, ""
	s.Sessions = nil
	for _, x := range f.Sessions {
		s.Sessions = append(s.Sessions, session(x))
		if x.Established {
			up++
		} else if down == "" {
			down = fmt.Sprintf("%s (%s) is %s: %s", x.Peer, x.Addr, x.State, orUnknown(x.LastError))
		}
	}
	s.Policies, s.PoliciesLeftOut, s.HostEndpoints = f.Policies, int32(f.LeftOut), f.Hosts
	s.Tunnels, s.Pools, s.Ways, s.MTU = f.Tunnels, f.Pools, f.Ways, int32(f.MTU)
	if f.WireGuard != nil {
		s.WireGuard = f.WireGuard
	}
	s.SessionSummary = fmt.Sprintf("%d/%d", up, len(f.Sessions))
	meta.SetStatusCondition(&s.Conditions, ready(f, now))
	meta.SetStatusCondition(&s.Conditions, enforced(f.Enforcement, now))
	meta.SetStatusCondition(&s.Conditions, established(len(f.Sessions), down, now))
	if f.Encryption == nil {
		meta.RemoveStatusCondition(&s.Conditions, koratv1.ConditionEncrypted)
	} else {
		meta.SetStatusCondition(&s.Conditions, encrypted(*f.Encryption, now))
	}
	meta.SetStatusCondition(&s.Conditions, pathCondition(f, now))
}

func ready(f Facts, now metav1.Time) metav1.Condition {
	c := metav1.Condition{Type: koratv1.ConditionReady, Status: metav1.ConditionTrue, Reason: koratv1.ReasonProgrammed, LastTransitionTime: now}
	if f.Problem != nil {
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, koratv1.ReasonKernelError, koratv1.Shorten(f.Problem.Error(), koratv1.MaxMessage)
		if f.Starting {
			c.Reason = koratv1.ReasonStarting
		}
	}
	return c
}

// backends names what packets pass: two while one takes over from the other.
func backends(e status.Enforcement) string {
	if e.InForce != e.Wanted && e.InForce != "" {
		return e.InForce + ", " + e.Wanted
	}
	return e.InForce
}

func enforced(e status.Enforcement, now metav1.Time) metav1.Condition {
	c := metav1.Condition{Type: koratv1.ConditionEnforced, Status: metav1.ConditionFalse, LastTransitionTime: now}
	switch {
	case e.Wanted == "":
		c.Reason, c.Message = koratv1.ReasonStarting, "the API server has not told all yet"
	case e.InForce != e.Wanted:
		c.Reason, c.Message = koratv1.ReasonSwitching, fmt.Sprintf("%s goes on until %s is in force (%s): %v", e.InForce, e.Wanted, e.Why, e.Missing)
	case e.Missing != nil:
		c.Reason, c.Message = koratv1.ReasonKernelError, fmt.Sprintf("%s: %v", e.Wanted, e.Missing)
	case e.Leftover != nil:
		c.Reason, c.Message = koratv1.ReasonLeftovers, fmt.Sprintf("%s is in force, and another backend cannot be removed: %v", e.Wanted, e.Leftover)
	default:
		c.Status, c.Reason, c.Message = metav1.ConditionTrue, koratv1.ReasonInForce, fmt.Sprintf("%s: %s", e.Wanted, e.Why)
	}
	c.Message = koratv1.Shorten(c.Message, koratv1.MaxMessage)
	return c
}

func encrypted(e Encryption, now metav1.Time) metav1.Condition {
	c := metav1.Condition{Type: koratv1.ConditionEncrypted, Status: metav1.ConditionTrue, Reason: koratv1.ReasonAllEncrypted, LastTransitionTime: now}
	var parts []string
	if len(e.Broken) > 0 {
		parts = append(parts, "does not work here: "+strings.Join(e.Broken, "; "))
	}
	if len(e.Closed) > 0 {
		parts = append(parts, "no packets to pods of nodes that encrypt nothing: "+listed(e.Closed))
	}
	if len(e.Clear) > 0 {
		parts = append(parts, "packets in clear to pods of nodes that encrypt nothing: "+listed(e.Clear))
	}
	if len(parts) > 0 {
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, koratv1.ReasonPeersWithoutKey, koratv1.Shorten(strings.Join(parts, "; "), koratv1.MaxMessage)
	}
	if len(e.Exposed) > 0 { // not a failure: that is only preferred
		text := fmt.Sprintf("the node itself sends in clear to %d of the nodes' addresses, such as %s: %s", len(e.Exposed), e.Exposed[0], cmp.Or(e.Why, "no handshake"))
		c.Message = koratv1.Shorten(strings.Join(append(parts, text), "; "), koratv1.MaxMessage)
	}
	if len(e.Broken) > 0 {
		c.Reason = koratv1.ReasonCannotEncrypt
	}
	return c
}

func established(wanted int, down string, now metav1.Time) metav1.Condition {
	c := metav1.Condition{Type: koratv1.ConditionEstablished, Status: metav1.ConditionTrue, Reason: koratv1.ReasonAllEstablished, LastTransitionTime: now}
	switch {
	case wanted == 0:
		c.Reason = koratv1.ReasonNoSessions
	case down != "":
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, koratv1.ReasonSessionsDown, koratv1.Shorten(down, koratv1.MaxMessage)
	}
	return c
}

func session(x bgp.Session) koratv1.SessionStatus {
	s := koratv1.SessionStatus{
		Peer: x.Peer, Address: address(x.Addr), ASNumber: koratv1.ASNumber(x.ASN), State: koratv1.SessionState(x.State),
		Received: int32(x.Received), Accepted: int32(x.Accepted), BFD: x.BFD, Advertised: int32(x.Advertised), LastError: koratv1.Shorten(x.LastError, koratv1.MaxMessage),
	}
	if !x.Since.IsZero() {
		since := metav1.NewTime(x.Since.Truncate(time.Second)) // what the API keeps, so that equal stays equal
		s.Since = &since
	}
	return s
}

// address: that of an unnumbered neighbour may not be known yet.
func address(a netip.Addr) string {
	if !a.IsValid() {
		return "::"
	}
	return a.WithZone("").String()
}

func orUnknown(text string) string {
	if text == "" {
		return "not up yet"
	}
	return text
}
