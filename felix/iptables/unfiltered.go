package iptables

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/policy/ir"
)

// errNoIPv6 is why IPv6 cannot be filtered where there is none.
var errNoIPv6 = errors.New("the kernel has no IPv6")

// Usable returns nil when the host can filter packets of the family, and else
// why it cannot: a program is missing or does not work, or the kernel does not
// know the family. It reads the network namespace of its thread. That a program
// took too long, or that somebody has put rules into a table that iptables cannot
// print, says nothing about the host.
func Usable(ctx context.Context, f ir.Family, flavour Flavour) error {
	if _, err := os.Stat("/proc/thread-self/net/if_inet6"); f == ir.IPv6 && errors.Is(err, fs.ErrNotExist) {
		return errNoIPv6
	}
	t := tool{f, flavour}
	for _, suffix := range []string{"", "-restore"} {
		if _, err := t.path(suffix); err != nil {
			return err
		}
	}
	for _, table := range []string{"raw", "filter"} {
		if _, err := t.save(ctx, table); err != nil && !errors.Is(err, context.DeadlineExceeded) && !incompatible(err) {
			return err
		}
	}
	return nil
}

// Unfiltered stands in for the Firewall of IPv6 on a host that cannot filter it.
// Pods with an IPv6 address stay closed there. For the others the host takes in
// no IPv6 from their interfaces: they could reach it at its link-local address.
// It is a reconciler, a gate and a link watcher of felix/apply.
type Unfiltered struct {
	root      string // where the kernel shows its parameters
	why       error
	endpoints map[string]*desired.Endpoint
	unsure    map[string]error // interfaces that may take in IPv6; why, nil if not looked at
}

// NewUnfiltered makes an Unfiltered for what Usable returned.
func NewUnfiltered(why error) *Unfiltered {
	return &Unfiltered{root: "/proc/sys", why: why, endpoints: map[string]*desired.Endpoint{}, unsure: map[string]error{}}
}

// Name returns that of the Firewall.
func (*Unfiltered) Name() string { return "iptables-ipv6" }

// Want takes in what changed.
func (u *Unfiltered) Want(d desired.Delta) {
	for iface, e := range d.Endpoints {
		delete(u.endpoints, iface)
		delete(u.unsure, iface)
		if e != nil {
			u.endpoints[iface] = e
			u.suspect(iface)
		}
	}
}

// suspect makes the next Apply look at an interface.
func (u *Unfiltered) suspect(iface string) {
	if e := u.endpoints[iface]; e != nil && len(familyAddrs(e, ir.IPv6)) == 0 {
		u.unsure[iface] = nil
	}
}

// LinkChanged is told of interfaces that are made anew, with default parameters.
func (u *Unfiltered) LinkChanged(iface string) { u.suspect(iface) }

// Resync makes the next Apply look at everything.
func (u *Unfiltered) Resync(context.Context) error {
	for iface := range u.endpoints {
		u.suspect(iface)
	}
	return nil
}

// Apply closes the interfaces of pods without IPv6 to it.
func (u *Unfiltered) Apply(context.Context) error {
	var errs []error
	for iface := range u.unsure {
		err := u.disable(iface)
		if err == nil {
			delete(u.unsure, iface)
			continue
		}
		u.unsure[iface] = fmt.Errorf("interface %s: take in no IPv6: %w", iface, err)
		if !errors.Is(err, errNoInterface) { // nothing to retry: LinkChanged will tell when it comes
			errs = append(errs, u.unsure[iface])
		}
	}
	return errors.Join(errs...)
}

var errNoInterface = errors.New("no such interface")

func (u *Unfiltered) disable(iface string) error {
	if !ifaceName.MatchString(iface) {
		return fmt.Errorf("bad name %q", iface)
	}
	all := filepath.Join(u.root, "net/ipv6/conf")
	if _, err := os.Stat(all); errors.Is(err, fs.ErrNotExist) {
		return nil // the kernel has none
	}
	file := filepath.Join(all, iface, "disable_ipv6")
	have, err := os.ReadFile(file)
	if err == nil && strings.TrimSpace(string(have)) != "1" {
		err = os.WriteFile(file, []byte("1"), 0o644)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return errNoInterface
	}
	return err
}

// Closed returns the pods that have an IPv6 address, and those whose interfaces
// may still take in IPv6.
func (u *Unfiltered) Closed() map[string]error {
	closed := map[string]error{}
	for iface, e := range u.endpoints {
		if own := familyAddrs(e, ir.IPv6); len(own) > 0 {
			closed[iface] = fmt.Errorf("the pod has the address %s, and this host cannot filter IPv6: %w", own[0], u.why)
		}
	}
	for iface, err := range u.unsure {
		if closed[iface] = err; err == nil {
			closed[iface] = errPending
		}
	}
	return closed
}
