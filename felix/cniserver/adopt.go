package cniserver

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/koratnet/korat/felix/cniserver/wire"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/ipam"
	"github.com/koratnet/korat/ipam/journal"

	podnet "github.com/koratnet/korat/felix/pod"
)

// Pod is a pod of this node as the API server knows it.
type Pod struct {
	Namespace, Name string
	// Addrs are those of its addresses that lie in blocks that this node is
	// about to take over.
	Addrs []netip.Addr
}

// Adopt records what runs on the node although the journal does not know it: the
// state directory was lost. The kernel knows who has which address, the API
// server the names. A pod that the API server gives an address without an
// interface here may be between two sandboxes: its address is not handed out
// until both say that it is gone. After success everything in use is in the
// journal, and CNI is synced. To adopt again what is adopted changes nothing.
func (s *Server) Adopt(pods []Pod) error {
	wired, err := s.Wirer.Wired()
	if err != nil {
		return err
	}
	names := map[string]Pod{} // by host interface
	for _, p := range pods {
		names[desired.HostInterface(p.Namespace, p.Name)] = p
	}
	inKernel := map[netip.Addr]bool{}
	var errs []error
	s.settleDisputes(wired, names)
	for _, w := range wired {
		for _, a := range w.Addrs {
			inKernel[a] = true
		}
		delete(names, w.HostInterface)
	}
	for _, w := range s.unknown(wired) {
		i := slices.IndexFunc(pods, func(p Pod) bool { return desired.HostInterface(p.Namespace, p.Name) == w.HostInterface })
		h := ipam.Handle{Pod: w.HostInterface}
		if i >= 0 {
			h = ipam.Handle{Namespace: pods[i].Namespace, Pod: pods[i].Name}
			if len(w.Addrs) == 0 {
				w.Addrs = without(pods[i].Addrs, inKernel)
			}
		}
		errs = append(errs, s.adopt(h, w))
	}
	for iface, p := range names {
		w := podnet.Wired{HostInterface: iface, Addrs: without(p.Addrs, inKernel)}
		errs = append(errs, s.adopt(ipam.Handle{Namespace: p.Namespace, Pod: p.Name}, w))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	s.settle()
	return nil
}

func without(addrs []netip.Addr, taken map[netip.Addr]bool) (left []netip.Addr) {
	for _, a := range addrs {
		if !taken[a] {
			left = append(left, a)
		}
	}
	return left
}

// settleDisputes leaves each address to one interface. Two have the same when the
// agent was killed after it had struck a pod from the journal and before its
// veth was gone: the address then belongs to a later pod. That is the one that
// the journal knows, or that the API server says has it, or that it knows at all.
func (s *Server) settleDisputes(wired []podnet.Wired, pods map[string]Pod) {
	known := s.recorded()
	claim := func(w podnet.Wired, a netip.Addr) int {
		p, named := pods[w.HostInterface]
		switch {
		case known[w.HostInterface]:
			return 3
		case slices.Contains(p.Addrs, a):
			return 2
		case named:
			return 1
		}
		return 0
	}
	owner := map[netip.Addr]podnet.Wired{}
	for _, w := range wired {
		for _, a := range w.Addrs {
			if o, disputed := owner[a]; !disputed || claim(w, a) > claim(o, a) {
				owner[a] = w
			}
		}
	}
	for i, w := range wired {
		wired[i].Addrs = slices.DeleteFunc(slices.Clone(w.Addrs), func(a netip.Addr) bool {
			return owner[a].HostInterface != w.HostInterface
		})
	}
}

// recorded returns the host interfaces that the journal knows.
func (s *Server) recorded() map[string]bool {
	known := map[string]bool{}
	for _, at := range s.attachments() {
		known[at.HostInterface] = true
	}
	return known
}

// unknown returns those of wired that the journal does not know.
func (s *Server) unknown(wired []podnet.Wired) []podnet.Wired {
	known := s.recorded()
	return slices.DeleteFunc(wired, func(w podnet.Wired) bool { return known[w.HostInterface] })
}

// adopt records w as h's, unless an ADD was faster. An interface without an
// address belongs to an ADD that was never answered, and holds nothing. It does not
// wait for an ADD that is under way: that one may wait for what is done only after
// everything is adopted.
func (s *Server) adopt(h ipam.Handle, w podnet.Wired) error {
	if len(w.Addrs) == 0 {
		return nil
	}
	unlock, free := s.pods.try(w.HostInterface)
	if !free {
		return fmt.Errorf("pod %s/%s on interface %s: not adopted while a request of the container runtime for it is under way; it is tried again", h.Namespace, h.Pod, w.HostInterface)
	}
	defer unlock()
	if len(s.unknown([]podnet.Wired{w})) == 0 {
		return nil
	}
	at := journal.Attachment{Handle: h, HostInterface: w.HostInterface, Addrs: w.Addrs}
	exists, err := s.Wirer.Exists(w.HostInterface)
	if err == nil {
		at.Generation, err = s.Journal.Attach(at)
	}
	if err != nil {
		return err
	}
	if err := s.Allocator.Hold(h, w.Addrs); err != nil {
		s.Log.Error("pods share an address", "pod", h.Namespace+"/"+h.Pod, "interface", w.HostInterface, "error", err)
	}
	s.Log.Info("pod adopted", "pod", h.Namespace+"/"+h.Pod, "interface", w.HostInterface, "addresses", w.Addrs)
	if exists {
		s.post(at)
	}
	return nil
}

// adopted returns the adopted attachment on iface.
func (s *Server) adopted(iface string) (journal.Attachment, bool) {
	for _, at := range s.Journal.On(iface) {
		if at.Handle.Adopted() {
			return at, true
		}
	}
	return journal.Attachment{}, false
}

// find returns the attachment that r is about: that of its sandbox, or one that
// was adopted and is this sandbox's, as far as the kernel can tell. A network
// namespace that is gone took its veth with it.
func (s *Server) find(r wire.Request) (journal.Attachment, bool) {
	if at, known := s.Journal.Find(handle(r)); known {
		return at, true
	}
	at, known := s.adopted(desired.HostInterface(r.Namespace, r.Pod))
	if !known {
		return at, false
	}
	exists, err := s.Wirer.Exists(at.HostInterface)
	return at, err == nil && (!exists || s.leadsTo(r, at.HostInterface))
}

// leadsTo reports whether the host interface iface is that of r's sandbox.
func (s *Server) leadsTo(r wire.Request, iface string) bool {
	if exists, err := s.Wirer.Exists(iface); err != nil || !exists {
		return false
	}
	err := s.Wirer.Check(podnet.Spec{Netns: r.Netns, Interface: r.IfName, HostInterface: iface})
	return !errors.Is(err, podnet.ErrElsewhere) && !errors.Is(err, podnet.ErrNoNetns)
}

// inherit looks, for an ADD, for an adopted attachment of the pod. If it is this
// sandbox's it becomes r's, with its addresses. If not, the runtime has replaced
// the sandbox, and it is taken away.
func (s *Server) inherit(r wire.Request) (at journal.Attachment, known bool, err error) {
	old, ok := s.adopted(desired.HostInterface(r.Namespace, r.Pod))
	if !ok {
		return at, false, nil
	}
	if !s.leadsTo(r, old.HostInterface) {
		return at, false, s.detach(old)
	}
	if err := s.forget(old); err != nil { // killed here, it is adopted again
		return at, false, err
	}
	at = old
	at.Handle, at.Netns = handle(r), r.Netns
	if at.Generation, err = s.Journal.Attach(at); err != nil {
		return at, false, err
	}
	return at, true, s.Allocator.Hold(at.Handle, at.Addrs) // they rest: nobody else got them
}

// Collect detaches what two calls found without its interface: the runtime went
// away before it could say DEL. Calls are a minute or so apart, which no ADD
// takes. claimed tells whether the API server knows a pod that has the address;
// it decides about adopted ones, whose interface may never have been seen. One
// goroutine may call it.
func (s *Server) Collect(claimed func(netip.Addr) bool) error {
	missing := map[ipam.Handle]uint64{}
	var errs []error
	for h, at := range s.attachments() {
		wired, err := s.wired(at)
		if err != nil || wired || h.Adopted() && slices.ContainsFunc(at.Addrs, claimed) {
			errs = append(errs, err)
			continue
		}
		if s.missing[h] != at.Generation {
			missing[h] = at.Generation
			continue
		}
		if err := s.collect(at); err != nil {
			missing[h] = at.Generation // tried again at the next call
			errs = append(errs, err)
		}
	}
	s.missing = missing
	return errors.Join(errs...)
}

// wired reports whether at has its interface. One of that name may be that of a
// later sandbox of the pod.
func (s *Server) wired(at journal.Attachment) (bool, error) {
	exists, err := s.Wirer.Exists(at.HostInterface)
	return exists && s.current(at), err
}

// collect detaches at if it is still there and has no interface.
func (s *Server) collect(at journal.Attachment) error {
	defer s.pods.lock(at.HostInterface)()
	now, known := s.Journal.Find(at.Handle)
	wired, err := s.wired(at)
	if err != nil || wired || !known || now.Generation != at.Generation {
		return err
	}
	s.Log.Info("pod went without DEL: its addresses are free again", "pod", at.Handle.Namespace+"/"+at.Handle.Pod, "addresses", at.Addrs)
	if s.current(at) {
		s.Box.Post(event.Gone(event.EndpointKind, at.HostInterface))
	}
	return s.forget(at)
}
