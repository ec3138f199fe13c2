package cniserver

import (
	"context"
	"errors"
	"fmt"

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
	if err != nil {
		return w, ipam.Request{}, &wire.Error{Code: types.ErrInvalidNetworkConfig, Message: "pod " + r.Namespace + "/" + r.Pod, Details: err.Error()}
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

// assign finds addresses and records them.
func (s *Server) assign(ctx context.Context, r wire.Request) (journal.Attachment, error) {
	h := handle(r)
	if len(r.Given) > 0 {
		return s.take(r)
	}
	_, req, err := s.wishes(ctx, r)
	if err != nil {
		return journal.Attachment{}, err
	}
	addrs, err := s.Allocator.Assign(ctx, h, req)
	if err != nil {
		return journal.Attachment{}, blame(err, req, r)
	}
	at := journal.Attachment{Handle: h, PodUID: r.PodUID, HostInterface: desired.HostInterface(r.Namespace, r.Pod), Netns: r.Netns, Addrs: addrs, Keep: req.Keep}
	if at.Generation, err = s.Journal.Attach(at); err != nil {
		s.Allocator.Undo(h, addrs)
		return journal.Attachment{}, err
	}
	return at, nil
}

// take records the addresses that another plugin has assigned. In a block of this
// node they must be free.
func (s *Server) take(r wire.Request) (at journal.Attachment, err error) {
	if len(r.Given) > 2 || len(r.Given) == 2 && r.Given[0].Is4() == r.Given[1].Is4() {
		return at, fmt.Errorf("the IPAM plugin assigned %v, expected at most one address of each family", r.Given)
	}
	at = journal.Attachment{Handle: handle(r), PodUID: r.PodUID, HostInterface: desired.HostInterface(r.Namespace, r.Pod), Netns: r.Netns, Addrs: r.Given}
	err = s.Allocator.Hold(at.Handle, at.Addrs)
	if err == nil {
		at.Generation, err = s.Journal.Attach(at)
	}
	if err != nil {
		s.Allocator.Undo(at.Handle, at.Addrs)
		return journal.Attachment{}, err
	}
	return at, nil
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
