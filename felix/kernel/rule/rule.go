// Package rule keeps the kernel's rules of policy routing as desired. felix/apply
// calls it. It writes no routes: felix/kernel/wireguard fills the tables that rules
// lead to.
//
// Ours are the rules of protocol desired.RuleProtocol. Others are never changed.
package rule

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/delta"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/nlsock"
)

// Reconciler is an apply.Reconciler.
type Reconciler struct {
	handle   *netlink.Handle
	rules    *delta.Tracker[desired.Rule, there]
	complete bool
}

// there is all there is to say of a rule beside what it is.
type there struct{}

// New returns a Reconciler for the network namespace of the calling thread.
func New() (*Reconciler, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("rules: %w", err)
	}
	r := &Reconciler{handle: handle, rules: delta.New[desired.Rule](func(there, there) bool { return true })}
	r.rules.AllowRemoval(func(desired.Rule, there) bool { return r.complete })
	return r, nil
}

// Close closes the netlink socket.
func (r *Reconciler) Close() { r.handle.Close() }

// Name implements apply.Reconciler.
func (*Reconciler) Name() string { return "rule" }

// Want implements apply.Reconciler.
func (r *Reconciler) Want(d desired.Delta) {
	r.complete = r.complete || d.Complete
	for rule, wanted := range d.Rules {
		if wanted == nil {
			r.rules.Unwant(rule)
		} else {
			r.rules.Want(rule, there{})
		}
	}
}

// Resync implements apply.Reconciler.
func (r *Reconciler) Resync(context.Context) error {
	have, err := r.read()
	if err != nil {
		return err
	}
	r.rules.Resync(have)
	return nil
}

// Present returns our rules in the network namespace of the calling thread, in the
// words of `ip rule`.
func Present() (names []string, err error) {
	r, err := New()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	have, err := r.read()
	if err != nil {
		return nil, err
	}
	for rule := range have {
		names = append(names, fmt.Sprintf("from %s lookup %d", rule.From, rule.Table))
	}
	return names, nil
}

func (r *Reconciler) read() (iter.Seq2[desired.Rule, there], error) {
	var ours []desired.Rule
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := nlsock.Retry(func() ([]netlink.Rule, error) { return r.handle.RuleList(family) })
		if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EOPNOTSUPP) { // a kernel without them has none
			return nil, fmt.Errorf("read rules: %w", err)
		}
		for _, k := range list {
			if k.Protocol == desired.RuleProtocol {
				ours = append(ours, ruleOf(family, k))
			}
		}
	}
	return func(yield func(desired.Rule, there) bool) {
		for _, rule := range ours {
			if !yield(rule, there{}) {
				return
			}
		}
	}, nil
}

// Apply implements apply.Reconciler.
func (r *Reconciler) Apply(context.Context) error {
	var errs []error
	for rule, c := range r.rules.Pending() {
		change, absent := r.handle.RuleAdd, unix.EEXIST
		if c.Op == delta.Remove {
			change, absent = r.handle.RuleDel, unix.ENOENT
		}
		if err := change(kernelRule(rule)); err != nil && !errors.Is(err, absent) {
			errs = append(errs, fmt.Errorf("rule for packets from %s: %w", rule.From, err))
			continue
		}
		r.rules.Done(rule)
	}
	return errors.Join(errs...)
}

func kernelRule(rule desired.Rule) *netlink.Rule {
	k := netlink.NewRule()
	k.Priority, k.Table, k.Protocol = int(rule.Priority), int(rule.Table), desired.RuleProtocol
	k.Family = netlink.FAMILY_V4
	if rule.From.Addr().Is6() {
		k.Family = netlink.FAMILY_V6
	}
	if rule.From.Bits() > 0 {
		k.Src = &net.IPNet{IP: rule.From.Addr().AsSlice(), Mask: net.CIDRMask(rule.From.Bits(), rule.From.Addr().BitLen())}
	}
	return k
}

func ruleOf(family int, k netlink.Rule) desired.Rule {
	rule := desired.Rule{Priority: uint32(k.Priority), Table: uint32(k.Table), From: netip.PrefixFrom(netip.IPv4Unspecified(), 0)}
	if family == netlink.FAMILY_V6 {
		rule.From = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	if k.Src != nil {
		addr, _ := netip.AddrFromSlice(k.Src.IP)
		bits, _ := k.Src.Mask.Size()
		rule.From = netip.PrefixFrom(addr.Unmap(), bits)
	}
	return rule
}
