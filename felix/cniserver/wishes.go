package cniserver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/koratnet/korat/felix/annotation"
	"github.com/koratnet/korat/felix/cniserver/wire"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/ipam"
	"github.com/koratnet/korat/ipam/journal"
)

// wishes returns what the pod of r asks for in its annotations, and the request
// for addresses that follows: what the pod says goes before what its namespace
// says, that before the plugin's configuration, that before the pools' selectors.
// While nobody can tell the annotations, the pod gets what one without them gets,
// of pools that are for everybody: a node whose API server is away starts pods.
func (s *Server) wishes(ctx context.Context, r wire.Request) (annotation.Wishes, ipam.Request, error) {
	var l Listing
	if r.Namespace != "" && s.Directory != nil {
		l = s.Directory.Lookup(ctx, r.Namespace, r.Pod, event.ParseUID(r.PodUID))
		if !l.PodKnown || !l.NamespaceKnown {
			s.Log.Warn("pod is attached without knowing its annotations", "pod", r.Namespace+"/"+r.Pod)
		}
	}
	w, err := annotation.Parse(l.Pod, l.Namespace)
	if err == nil {
		err = s.bounded(w)
	}
	if err != nil {
		return w, ipam.Request{}, refusal(types.ErrInvalidNetworkConfig, r, err)
	}
	if len(w.Floating) > 0 {
		if err := s.Directory.Floating(r.Namespace, r.Pod, w.Floating); err != nil { // the pod that has it may go
			return w, ipam.Request{}, refusal(types.ErrTryAgainLater, r, fmt.Errorf("annotation %s: %w", annotation.FloatingAddresses, err))
		}
	}
	req := ipam.Request{
		Namespace: l.Labels, Known: l.NamespaceKnown, Pools4: w.Pools4, Pools6: w.Pools6,
		Addrs: w.Addrs, Families: w.Families, Keep: w.Keep,
	}
	if len(req.Pools4) == 0 {
		req.Pools4 = r.Pools4
	}
	if len(req.Pools6) == 0 {
		req.Pools6 = r.Pools6
	}
	return w, req, nil
}

// refusal says what is wrong with what the pod of r asks for.
func refusal(code uint, r wire.Request, err error) error {
	return &wire.Error{Code: code, Message: "pod " + r.Namespace + "/" + r.Pod, Details: err.Error()}
}

// bounded names the annotations for bandwidth where nothing acts on them. A pod that
// asks for them waits, rather than run without.
func (s *Server) bounded(w annotation.Wishes) error {
	const plugin = "bandwidth"
	for name, rate := range map[string]uint64{annotation.IngressBandwidth: w.Ingress, annotation.EgressBandwidth: w.Egress} {
		if rate != 0 && slices.Contains(s.Chain, plugin) {
			return fmt.Errorf("annotation %s: the plugin %s, which is chained on this node, bounds pods itself: use kubernetes.io/ingress-bandwidth and kubernetes.io/egress-bandwidth",
				name, plugin)
		}
	}
	return nil
}

// assign finds addresses and begins to record them, with what else the pod asks
// for. recorded, to be called at once, returns when that is on disk.
func (s *Server) assign(ctx context.Context, r wire.Request) (at journal.Attachment, recorded func() error, err error) {
	h := handle(r)
	w, req, err := s.wishes(ctx, r)
	if err != nil {
		return at, nil, err
	}
	addrs, err := s.addresses(ctx, h, r, req)
	if err != nil {
		return at, nil, err
	}
	for _, a := range w.Floating {
		if !slices.ContainsFunc(addrs, func(own netip.Addr) bool { return own.Is4() == a.Is4() }) {
			s.Allocator.Undo(h, addrs)
			return at, nil, refusal(types.ErrInvalidNetworkConfig, r,
				fmt.Errorf("annotation %s asks for %s, and the pod has no address of its family", annotation.FloatingAddresses, a))
		}
	}
	at = journal.Attachment{
		Handle: h, Network: network(r), PodUID: r.PodUID, HostInterface: desired.HostInterface(r.Namespace, r.Pod), Netns: r.Netns,
		Addrs: addrs, Keep: req.Keep, MAC: w.MAC.String(), Sources: w.Sources, Ingress: w.Ingress, Egress: w.Egress,
	}
	at.Generation, recorded = s.Journal.Begin(at)
	return at, recorded, nil
}

// addresses are those that another plugin has assigned, or ours. In a block of
// this node the other's must be free.
func (s *Server) addresses(ctx context.Context, h ipam.Handle, r wire.Request, req ipam.Request) ([]netip.Addr, error) {
	switch n := len(r.Given); {
	case n == 0:
		addrs, err := s.Allocator.Assign(ctx, h, req)
		if err != nil {
			return nil, blame(err, req, r)
		}
		return addrs, nil
	case n > 2 || n == 2 && r.Given[0].Is4() == r.Given[1].Is4():
		return nil, fmt.Errorf("the IPAM plugin assigned %v, expected at most one address of each family", r.Given)
	}
	if err := s.Allocator.Hold(h, r.Given); err != nil {
		s.Allocator.Undo(h, r.Given)
		return nil, err
	}
	return r.Given, nil
}

// blame says where the names and addresses come from that err is about.
func blame(err error, req ipam.Request, r wire.Request) error {
	named := len(req.Pools4)+len(req.Pools6) > 0
	switch {
	case errors.Is(err, ipam.ErrTaken) && len(req.Addrs) > 0, errors.Is(err, ipam.ErrNoPool) && len(req.Addrs) > 0 && !named:
		return fmt.Errorf("annotation %s: %w", annotation.IPAddresses, err)
	case errors.Is(err, ipam.ErrNoPool) && named && len(r.Pools4)+len(r.Pools6) == 0:
		return fmt.Errorf("annotations %s, %s: %w", annotation.IPv4Pools, annotation.IPv6Pools, err)
	case errors.Is(err, ipam.ErrNoPool) && named:
		return fmt.Errorf("pools of the annotations or of the plugin's configuration: %w", err)
	}
	return err
}
