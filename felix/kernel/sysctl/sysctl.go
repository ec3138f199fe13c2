// Package sysctl keeps the kernel parameters that routing between pods needs:
// some of the node, some of the host side of each local pod's veth and of the
// node's ends of tunnels. felix/apply calls it. Parameters are set and never set
// back: nobody can know what they were meant to be without us.
package sysctl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/koratnet/korat/felix/desired"
)

// Root is where the kernel shows its parameters. Those of the network are the
// ones of the reading thread's network namespace.
const Root = "/proc/sys"

// parameter is a path below Root, in which IFACE stands for an interface, and
// the value it has to have.
type parameter struct{ path, value string }

// ofNode are the parameters of the node, by whether pods have IPv4 or IPv6. The
// hash policies spread the connections between two nodes over equal paths; by
// addresses alone they would all take the same.
var (
	ofNode4 = []parameter{
		{"net/ipv4/ip_forward", "1"},
		{"net/ipv4/fib_multipath_hash_policy", "1"},
	}
	// Forwarding makes the kernel ignore router advertisements on uplinks, so it
	// is left alone where no pool has IPv6.
	ofNode6 = []parameter{
		{"net/ipv6/conf/all/forwarding", "1"},
		{"net/ipv6/fib_multipath_hash_policy", "1"},
	}
)

// ofLink are the parameters of every pod's host side. The host answers ARP for
// all addresses, at once: by default the kernel waits up to 0.8 s. A pod may not
// make itself the node's router, whether or not it has IPv6. Sources are checked
// by rules, for both families alike, and not by the reverse path.
var (
	ofLink4 = []parameter{
		{"net/ipv4/conf/IFACE/forwarding", "1"},
		{"net/ipv4/conf/IFACE/proxy_arp", "1"},
		{"net/ipv4/conf/IFACE/route_localnet", "1"},
		{"net/ipv4/conf/IFACE/rp_filter", "0"},
		{"net/ipv4/neigh/IFACE/proxy_delay", "0"},
		{"net/ipv6/conf/IFACE/accept_ra", "0"},
	}
	ofLink6 = []parameter{
		{"net/ipv6/conf/IFACE/disable_ipv6", "0"},
		{"net/ipv6/conf/IFACE/forwarding", "1"},
		{"net/ipv6/conf/IFACE/proxy_ndp", "1"},
	}
	ofLink46 = slices.Concat(ofLink4, ofLink6)

	// What comes out of a tunnel may belong to a route through an uplink, where
	// modes are mixed or change: the reverse path is not asked for, even if it is
	// for all interfaces. 2 stands above the 1 of "all", 0 does not.
	ofTunnel4 = []parameter{
		{"net/ipv4/conf/IFACE/forwarding", "1"},
		{"net/ipv4/conf/IFACE/rp_filter", "2"},
	}
	ofTunnel6 = []parameter{
		{"net/ipv6/conf/IFACE/disable_ipv6", "0"},
		{"net/ipv6/conf/IFACE/forwarding", "1"},
		{"net/ipv6/conf/IFACE/accept_ra", "0"},
	}
)

// Reconciler is an apply.Reconciler, Gated and a LinkWatcher. Parameters are
// few, so it does not keep what the kernel has: it looks at those that may be
// wrong.
type Reconciler struct {
	root   string
	node   []parameter
	links  map[string]wanted
	unsure map[string]error // interfaces, or "" for the node; why, nil if not looked at
}

type wanted struct {
	params     []parameter
	generation uint64 // another one: the interface was made anew, with defaults
}

// New returns a Reconciler of the parameters below root, which is Root but in
// tests.
func New(root string) *Reconciler {
	return &Reconciler{
		root: root, node: slices.Clone(ofNode4),
		links: map[string]wanted{}, unsure: map[string]error{"": nil},
	}
}

// Name implements apply.Reconciler.
func (*Reconciler) Name() string { return "sysctl" }

// Want implements apply.Reconciler.
func (r *Reconciler) Want(d desired.Delta) {
	if d.Pools != nil && slices.ContainsFunc(*d.Pools, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
		r.wantNode6()
	}
	for kind, t := range d.Tunnels {
		r.wantTunnel(kind, t)
	}
	for name, ep := range d.Endpoints {
		if ep == nil {
			delete(r.links, name)
			delete(r.unsure, name)
			continue
		}
		w := wanted{ofLink4, ep.Generation}
		if slices.ContainsFunc(ep.Addrs, netip.Addr.Is6) {
			w.params = ofLink46
			r.wantNode6()
		}
		if old := r.links[name]; len(old.params) != len(w.params) || old.generation != w.generation {
			r.links[name], r.unsure[name] = w, nil
		}
	}
}

func (r *Reconciler) wantTunnel(kind desired.TunnelKind, t *desired.TunnelDevice) {
	name := kind.Device()
	if t == nil {
		delete(r.links, name)
		delete(r.unsure, name)
		return
	}
	w := wanted{params: ofTunnel4}
	if kind.Is6() {
		w.params = ofTunnel6
	}
	if _, known := r.links[name]; !known {
		r.links[name], r.unsure[name] = w, nil
	}
}

func (r *Reconciler) wantNode6() {
	if len(r.node) == len(ofNode4) {
		r.node = append(r.node, ofNode6...)
		r.unsure[""] = nil
	}
}

// LinkChanged implements apply.LinkWatcher: an interface that is made anew has
// default parameters. "all" is how the kernel calls the node's own.
func (r *Reconciler) LinkChanged(name string) {
	if name == "all" {
		r.unsure[""] = nil
	}
	if _, ok := r.links[name]; ok {
		r.unsure[name] = nil
	}
}

// Closed implements apply.Gated.
func (r *Reconciler) Closed() map[string]error {
	closed := map[string]error{}
	for name, err := range r.unsure {
		if err == nil {
			err = errors.New("parameters not set yet")
		}
		if _, tunnel := desired.TunnelOfDevice(name); name != "" && !tunnel {
			closed[name] = fmt.Errorf("interface %s: %w", name, err)
		}
	}
	return closed
}

// Resync implements apply.Reconciler: the next Apply looks at everything.
func (r *Reconciler) Resync(context.Context) error {
	r.unsure[""] = nil
	for name := range r.links {
		r.unsure[name] = nil
	}
	return nil
}

// Apply implements apply.Reconciler.
func (r *Reconciler) Apply(context.Context) error {
	var errs []error
	for name := range r.unsure {
		params := r.node
		if name != "" {
			params = r.links[name].params
		}
		err := r.set(name, params)
		if err == nil {
			delete(r.unsure, name)
			continue
		}
		r.unsure[name] = err
		if name != "" && errors.Is(err, errMissing) {
			continue // nothing to retry: LinkChanged will tell when it comes
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// errMissing says that the interface is not there (any more).
var errMissing = errors.New("no such interface")

func (r *Reconciler) set(iface string, params []parameter) error {
	var errs []error
	for _, p := range params {
		if err := r.setOne(iface, p); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (r *Reconciler) setOne(iface string, p parameter) error {
	path := filepath.Join(r.root, strings.Replace(p.path, "IFACE", iface, 1))
	have, err := read(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return r.whyAbsent(iface, p)
	case err != nil:
		return err
	case have == p.value:
		return nil
	}
	err = write(path, p.value)
	if errors.Is(err, fs.ErrNotExist) {
		return r.whyAbsent(iface, p)
	}
	return err
}

// whyAbsent tells an interface that is gone from a kernel without IPv6, whose
// parameters are as good as set.
func (r *Reconciler) whyAbsent(iface string, p parameter) error {
	if _, err := os.Stat(filepath.Join(r.root, "net/ipv6")); err != nil && strings.HasPrefix(p.path, "net/ipv6/") {
		return nil
	}
	if iface != "" {
		return errMissing
	}
	return fmt.Errorf("kernel parameter %s: %w", p.path, fs.ErrNotExist)
}
