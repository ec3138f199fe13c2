package cniserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sync/errgroup"

	"github.com/koratnet/korat/felix/cniserver/wire"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/ipam"
	"github.com/koratnet/korat/ipam/journal"

	podnet "github.com/koratnet/korat/felix/pod"
)

func handle(r wire.Request) ipam.Handle {
	return ipam.Handle{Namespace: r.Namespace, Pod: r.Pod, Sandbox: r.ContainerID, Interface: r.IfName}
}

// add attaches a pod. Asked again for the same sandbox it answers the same.
func (s *Server) add(ctx context.Context, r wire.Request) (*Added, error) {
	ctx, cancel := context.WithTimeout(ctx, addTimeout)
	defer cancel()
	h, iface := handle(r), desired.HostInterface(r.Namespace, r.Pod)
	defer s.pods.lock(iface)()

	at, known := s.Journal.Find(h)
	recorded := func() error { return nil }
	var err error
	if !known {
		at, known, err = s.inherit(r)
	}
	if err == nil && !known {
		at, recorded, err = s.assign(ctx, r)
	}
	if err != nil {
		return nil, err
	}
	spec := s.spec(at, r.Netns, r.IfName)
	mac, err := s.attach(ctx, at, spec, recorded)
	if now := s.MTU(); err == nil && now != spec.MTU { // an agent that starts learns it before it programs the first endpoint
		spec.MTU = now
		err = s.Wirer.SetMTU(spec)
	}
	if err != nil {
		if !known { // an earlier ADD may have succeeded and the pod may run
			err = errors.Join(err, s.abandon(at))
		}
		return nil, err
	}
	return &Added{HostInterface: iface, HostMAC: wire.HostMAC, PodMAC: mac.String(), MTU: spec.MTU, Addrs: at.Addrs}, nil
}

// attach records at, makes its veth and waits for the kernel, all at once: none
// needs another but the route, which needs the veth. An earlier veth of the name
// goes before, or it would be taken for that of at.
func (s *Server) attach(ctx context.Context, at journal.Attachment, spec podnet.Spec, recorded func() error) (mac net.HardwareAddr, err error) {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(recorded)
	if err := s.Wirer.Prepare(spec); err != nil {
		return nil, errors.Join(err, g.Wait())
	}
	s.post(at)
	g.Go(func() (err error) {
		mac, err = s.Wirer.Attach(spec)
		return err
	})
	g.Go(func() error { return s.Status.WaitEndpoint(ctx, at.HostInterface, at.Generation) })
	err = g.Wait() // then mac is written
	return mac, err
}

// abandon takes back all of an ADD that failed. If the record of it failed, there
// is none to be struck out.
func (s *Server) abandon(at journal.Attachment) error {
	if _, recorded := s.Journal.Find(at.Handle); recorded {
		return s.detach(at)
	}
	err := s.release(at)
	if err == nil {
		s.Allocator.Release(at.Handle, at.Addrs, s.Allocator.Rest(at.Handle, at.Addrs, at.Keep))
	}
	return err
}

// goneTimeout bounds how long a DEL waits for routes and rules to go.
const goneTimeout = 2 * time.Second

// detach takes at out of the kernel and then out of the books: while it has a
// route its addresses are in use. The veth itself, which the kernel is slow to
// remove, goes afterwards; without route and policy it leads nowhere.
func (s *Server) detach(at journal.Attachment) error {
	if err := s.release(at); err != nil {
		return err
	}
	return s.forget(at)
}

// release takes at out of the kernel, as far as anybody could reach it.
func (s *Server) release(at journal.Attachment) error {
	s.Box.Post(event.Gone(event.EndpointKind, at.HostInterface))
	if err := s.Wirer.Retire(at.HostInterface); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), goneTimeout)
	defer cancel()
	if err := s.Status.WaitGone(ctx, at.HostInterface); err != nil {
		s.Log.Warn("routes of a pod that goes are removed with its interface", "error", err)
		if err := s.Wirer.Detach(at.HostInterface); err != nil {
			return err
		}
	}
	s.reaper.wake()
	return nil
}

// forget strikes at from the journal, then gives its addresses back.
func (s *Server) forget(at journal.Attachment) error {
	rest := s.Allocator.Rest(at.Handle, at.Addrs, at.Keep)
	if err := s.Journal.Detach(at.Handle, rest); err != nil {
		return err
	}
	s.Allocator.Release(at.Handle, at.Addrs, rest)
	return nil
}

// del detaches a pod. Whatever is missing is success: a runtime repeats DEL
// until it hears that. A late DEL of an earlier sandbox frees its addresses and
// leaves the veth of its successor alone, also where both have the same path of
// the network namespace.
func (s *Server) del(r wire.Request) error {
	iface := desired.HostInterface(r.Namespace, r.Pod)
	defer s.pods.lock(iface)()
	at, known := s.find(r)
	switch {
	case !known && len(s.Journal.On(iface)) == 0 && s.leadsTo(r, iface): // a journal that was lost knew it
		return s.Wirer.Detach(iface)
	case !known:
		return nil
	case !s.current(at):
		return s.forget(at)
	}
	return s.detach(at)
}

// current reports whether at is the latest attachment on its host interface.
func (s *Server) current(at journal.Attachment) bool {
	for _, other := range s.Journal.On(at.HostInterface) {
		if other.Generation > at.Generation {
			return false
		}
	}
	return true
}

// check compares what ADD answered with the journal and the kernel.
func (s *Server) check(r wire.Request) error {
	at, known := s.find(r)
	if !known {
		return &wire.Error{Code: types.ErrUnknownContainer, Message: fmt.Sprintf("sandbox %s of pod %s/%s is not attached", r.ContainerID, r.Namespace, r.Pod)}
	}
	if !sameAddrs(r.Addrs, at.Addrs) {
		return fmt.Errorf("pod %s/%s holds %v, and prevResult says %v", r.Namespace, r.Pod, at.Addrs, r.Addrs)
	}
	if err := s.Wirer.Check(s.spec(at, r.Netns, r.IfName)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return s.Status.WaitEndpoint(ctx, at.HostInterface, at.Generation)
}

func sameAddrs(a, b []netip.Addr) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.SortFunc(a, netip.Addr.Compare)
	slices.SortFunc(b, netip.Addr.Compare)
	return slices.Equal(a, b)
}

// network is what the journal has for the network of r: nothing for the agent's
// own, as of attachments that an earlier version recorded.
func network(r wire.Request) string {
	if r.Network == wire.DefaultNetwork {
		return ""
	}
	return r.Network
}

// gc detaches every sandbox of the network that the runtime does not name. A node
// may have several networks of our plugin, and each has a GC of its own. The runtime
// cannot name those that we do not know ourselves; Collect finds out when they are gone.
func (s *Server) gc(r wire.Request) error {
	valid := map[wire.Attachment]bool{}
	for _, v := range r.Valid {
		valid[v] = true
	}
	var errs []error
	for h, at := range s.attachments() {
		if at.Network == network(r) && !h.Adopted() && !valid[wire.Attachment{ContainerID: h.Sandbox, IfName: h.Interface}] {
			errs = append(errs, s.del(wire.Request{ContainerID: h.Sandbox, IfName: h.Interface, Namespace: h.Namespace, Pod: h.Pod}))
		}
	}
	return errors.Join(errs...)
}

// replayTombstones carries out the DELs that came while no agent ran.
func (s *Server) replayTombstones() {
	files, _ := filepath.Glob(filepath.Join(s.RunDir, wire.TombstoneDir, "*[^~]")) // "~" ends one that is being written
	for _, f := range files {
		data, err := os.ReadFile(f)
		var r wire.Request
		if err == nil {
			err = json.Unmarshal(data, &r)
		}
		if err == nil && r.Command == wire.Del {
			err = s.del(r)
		}
		if err != nil {
			s.Log.Warn("a DEL that came while no agent ran could not be carried out", "file", f, "error", err)
			continue
		}
		_ = os.Remove(f) // repeated at the next start otherwise, which does no harm
	}
}

// locks are mutexes by name, made and forgotten as needed.
type locks struct {
	mu   sync.Mutex // guards held
	held map[string]*namedLock
}

type namedLock struct {
	sync.Mutex
	users int // holders and those who wait
}

// lock locks name and returns the function that unlocks it.
func (l *locks) lock(name string) (unlock func()) {
	n := l.enter(name)
	n.Lock()
	return func() { l.leave(name, n) }
}

// try is lock for who does not wait.
func (l *locks) try(name string) (unlock func(), free bool) {
	n := l.enter(name)
	if !n.TryLock() {
		l.forget(name, n)
		return nil, false
	}
	return func() { l.leave(name, n) }, true
}

func (l *locks) enter(name string) *namedLock {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held == nil {
		l.held = map[string]*namedLock{}
	}
	n := l.held[name]
	if n == nil {
		n = &namedLock{}
		l.held[name] = n
	}
	n.users++
	return n
}

func (l *locks) leave(name string, n *namedLock) {
	n.Unlock()
	l.forget(name, n)
}

func (l *locks) forget(name string, n *namedLock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n.users--; n.users == 0 {
		delete(l.held, name)
	}
}
