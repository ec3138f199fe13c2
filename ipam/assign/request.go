package assign

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/koratnet/korat/ipam"
)

// returnWait is how long a pod whose address another node keeps for it waits for
// it, before it gets another one.
const returnWait = 5 * time.Second

// Assign gives h what r asks for: one address of each family, all or nothing.
// Errors: ipam.ErrNoPool, ipam.ErrExhausted, ipam.ErrTaken, ipam.ErrRival, or what
// the API server said.
func (a *Allocator) Assign(ctx context.Context, h ipam.Handle, r ipam.Request) ([]netip.Addr, error) {
	if err := a.Problem(); err != nil {
		return nil, err
	}
	families := a.families(r)
	if len(families) == 0 {
		if err := a.waitListed(ctx); err != nil {
			return nil, fmt.Errorf("the node owns no block for this pod and the API server has not told of pools yet: %w", err)
		}
		if families = a.families(r); len(families) == 0 {
			return nil, fmt.Errorf("%w for node %s: create an IPPool, or correct nodeSelector, namespaceSelector or disabled of those there are", ipam.ErrNoPool, a.owner.Node)
		}
	}
	if err := a.checkNames(r); err != nil {
		return nil, err
	}
	var addrs []netip.Addr
	for _, bits := range families {
		addr, err := a.assign(ctx, h, r, bits)
		if err != nil {
			a.Undo(h, addrs)
			return nil, err
		}
		addrs = append(addrs, addr)
	}
	return addrs, nil
}

// families returns the address lengths (32, 128) that r gets: those it wants, or
// those for which it names something or a pool may be used.
func (a *Allocator) families(r ipam.Request) []int {
	if len(r.Families) > 0 {
		return slices.Sorted(slices.Values(r.Families))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	has := map[int]bool{}
	for _, bits := range []int{32, 128} {
		if len(r.Pools(bits)) > 0 || len(a.eligible(r, bits)) > 0 {
			has[bits] = true
		}
	}
	for _, addr := range r.Addrs {
		has[addr.BitLen()] = true
	}
	if len(a.pools) == 0 {
		for cidr := range a.own {
			if bits := cidr.Addr().BitLen(); a.usable(cidr, r, bits) {
				has[bits] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(has))
}

// checkNames says what is wrong with the pools that r names, if pools are known.
func (a *Allocator) checkNames(r ipam.Request) error {
	if !a.listed() {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, bits := range []int{32, 128} {
		for _, name := range r.Pools(bits) {
			p, known := a.pools[name]
			switch {
			case !known:
				return fmt.Errorf("%w: there is no IPPool %q", ipam.ErrNoPool, name)
			case p.CIDR.Addr().BitLen() != bits:
				return fmt.Errorf("%w: IPPool %q is %s, expected an %s pool", ipam.ErrNoPool, name, p.CIDR, familyName(bits))
			case p.Disabled:
				return fmt.Errorf("%w: IPPool %q is disabled or being deleted", ipam.ErrNoPool, name)
			case !p.Allows(use(r)):
				return fmt.Errorf("%w: IPPool %q is not for pods: see its allowedUses", ipam.ErrNoPool, name)
			}
		}
	}
	return nil
}

func familyName(bits int) string {
	if bits == 32 {
		return "IPv4"
	}
	return "IPv6"
}

func use(r ipam.Request) ipam.Use { return cmp.Or(r.Use, ipam.Pods) }

// serves reports whether r may have an address of p, which it does not ask for.
func (a *Allocator) serves(p ipam.Pool, r ipam.Request) bool {
	if p.Disabled || !p.Allows(use(r)) {
		return false
	}
	if named := r.Pools(p.CIDR.Addr().BitLen()); len(named) > 0 {
		return slices.Contains(named, p.Name)
	}
	return !p.Manual && (p.Nodes == nil || p.Nodes.Matches(a.labels)) &&
		(p.Namespaces == nil || r.Known && p.Namespaces.Matches(r.Namespace))
}

// eligible returns the pools that serve r, in the order in which they are to be used.
func (a *Allocator) eligible(r ipam.Request, bits int) (out []ipam.Pool) {
	names := r.Pools(bits)
	if len(names) == 0 {
		names = slices.Sorted(maps.Keys(a.pools))
	}
	for _, name := range names {
		if p, known := a.pools[name]; known && p.CIDR.Addr().BitLen() == bits && a.serves(p, r) {
			out = append(out, p)
		}
	}
	return out
}

// usable reports whether r may have an address of the own block. While no pool is
// known, what the journal says of its pool decides.
func (a *Allocator) usable(cidr netip.Prefix, r ipam.Request, bits int) bool {
	if cidr.Addr().BitLen() != bits || !a.valid(cidr) {
		return false
	}
	b := a.own[cidr]
	if len(a.pools) > 0 {
		p, known := a.pools[b.pool]
		return known && a.serves(p, r)
	}
	if named := r.Pools(bits); len(named) > 0 {
		return slices.Contains(named, b.pool)
	}
	return !b.restricted
}

// assign finds one address of the family with addresses of bits bits.
func (a *Allocator) assign(ctx context.Context, h ipam.Handle, r ipam.Request, bits int) (netip.Addr, error) {
	if i := slices.IndexFunc(r.Addrs, func(x netip.Addr) bool { return x.BitLen() == bits }); i >= 0 {
		return r.Addrs[i], a.exact(ctx, h, r, r.Addrs[i])
	}
	if addr, ok := a.returning(ctx, h, r, bits); ok {
		return addr, nil
	}
	if addr, ok := a.fromOwn(h, r, bits); ok {
		return addr, nil
	}
	// Not with claiming held, which TakeOver needs: Listed waits for that.
	if err := a.waitListed(ctx); err != nil {
		return netip.Addr{}, fmt.Errorf("the node's blocks are full and the API server has not told of pools yet: %w", err)
	}
	a.claiming.Lock()
	defer a.claiming.Unlock()
	if addr, ok := a.fromOwn(h, r, bits); ok { // somebody claimed while we waited
		return addr, nil
	}
	err := a.Problem()
	if err == nil {
		err = a.claim(ctx, r, bits)
	}
	if errors.Is(err, ipam.ErrExhausted) {
		err = errors.Join(a.borrow(ctx, r, bits), err)
		if addr, ok := a.fromOwn(h, r, bits); ok {
			return addr, nil
		}
	}
	if err != nil {
		return netip.Addr{}, err
	}
	addr, ok := a.fromOwn(h, r, bits)
	if !ok {
		return netip.Addr{}, errors.New("addresses of a block that was just claimed are gone already: try again")
	}
	return addr, nil
}

// fromOwn looks through the node's blocks.
func (a *Allocator) fromOwn(h ipam.Handle, r ipam.Request, bits int) (netip.Addr, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	for _, cidr := range a.inOrder(r, bits) {
		if addr, ok := a.own[cidr].Assign(h, now); ok {
			delete(a.idle, cidr)
			if a.own[cidr].Counts(now).Free == 0 {
				a.wake() // to claim ahead
			}
			return addr, true
		}
	}
	return netip.Addr{}, false
}

// inOrder returns the usable own blocks: of pools in the order in which r names
// them, if it does.
func (a *Allocator) inOrder(r ipam.Request, bits int) (out []netip.Prefix) {
	for _, cidr := range a.order {
		if a.usable(cidr, r, bits) {
			out = append(out, cidr)
		}
	}
	if names := r.Pools(bits); len(names) > 1 {
		slices.SortStableFunc(out, func(x, y netip.Prefix) int {
			return cmp.Compare(slices.Index(names, a.own[x].pool), slices.Index(names, a.own[y].pool))
		})
	}
	return out
}

// returning gives a pod the address that is kept for it: here, or by another node,
// which has it handed over if it answers in time.
func (a *Allocator) returning(ctx context.Context, h ipam.Handle, r ipam.Request, bits int) (netip.Addr, bool) {
	if r.Keep == 0 {
		return netip.Addr{}, false
	}
	addr, ok := a.keptFor(h.PodName(), r, bits)
	if !ok {
		return addr, false
	}
	ctx, cancel := context.WithTimeout(ctx, returnWait)
	defer cancel()
	if err := a.exact(ctx, h, r, addr); err != nil {
		a.log.Warn("a pod gets another address than the one that is kept for it", "pod", h.PodName(), "kept", addr.String(), "error", err)
		return addr, false
	}
	return addr, true
}

// keptFor returns the address that is kept for the pod, on this node or another.
func (a *Allocator) keptFor(pod string, r ipam.Request, bits int) (netip.Addr, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	for _, cidr := range a.order {
		if addr, kept := a.own[cidr].Kept(pod, now); kept && a.usable(cidr, r, bits) {
			return addr, true
		}
	}
	for cidr, s := range a.standing {
		p, known := a.pools[a.taken[cidr].Pool]
		if cidr.Addr().BitLen() != bits || !known || !a.serves(p, r) {
			continue
		}
		for addr, name := range s.Kept {
			if name == pod {
				return addr, true
			}
		}
	}
	return netip.Addr{}, false
}

// exact gives h the very address.
func (a *Allocator) exact(ctx context.Context, h ipam.Handle, r ipam.Request, addr netip.Addr) error {
	done, err := a.holdOwn(h, r, addr)
	if done || err != nil {
		return err
	}
	if err := a.waitListed(ctx); err != nil { // before claiming is held, as in assign
		return fmt.Errorf("address %s: the API server has not told whose it is: %w", addr, err)
	}
	a.claiming.Lock()
	defer a.claiming.Unlock()
	for range maxDonors {
		if done, err := a.holdOwn(h, r, addr); done || err != nil {
			return err
		}
		if err := a.fetch(ctx, h, r, addr); err != nil && !errors.Is(err, ipam.ErrConflict) {
			return err
		}
	}
	return fmt.Errorf("address %s: %w: its block changes hands: try again", addr, ipam.ErrTaken)
}

// holdOwn gives h the address if it is in an own block. It returns false if it is not.
func (a *Allocator) holdOwn(h ipam.Handle, r ipam.Request, addr netip.Addr) (bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	b, ours := a.blockOf(addr)
	if !ours || !a.valid(b.CIDR()) {
		return false, nil
	}
	if p, known := a.pools[b.pool]; known && (p.Disabled || !p.Allows(use(r))) {
		return true, fmt.Errorf("address %s: %w: its IPPool %s is disabled, being deleted or not for pods", addr, ipam.ErrNoPool, p.Name)
	}
	if err := b.Hold(addr, h); err != nil {
		return true, fmt.Errorf("%w: %w", ipam.ErrTaken, err)
	}
	delete(a.idle, b.CIDR())
	return true, nil
}

// fetch makes the address the node's: it claims its block, or asks the owner.
func (a *Allocator) fetch(ctx context.Context, h ipam.Handle, r ipam.Request, addr netip.Addr) error {
	a.mu.Lock()
	owner, b, taken := a.owner, ipam.Block{}, false
	for cidr, x := range a.taken { // the narrowest is whose it is
		if cidr.Contains(addr) && (!taken || cidr.Bits() > b.CIDR.Bits()) {
			b, taken = x, true
		}
	}
	var in []ipam.Pool
	for _, p := range a.pools {
		if p.CIDR.Contains(addr) && !p.Disabled && p.Allows(use(r)) {
			in = append(in, p)
		}
	}
	a.mu.Unlock()
	switch {
	case len(in) == 0:
		return fmt.Errorf("address %s: %w: no enabled IPPool for pods contains it", addr, ipam.ErrNoPool)
	case !taken:
		p := in[0]
		return a.take(ctx, ipam.Block{CIDR: netip.PrefixFrom(addr, p.BlockSize).Masked(), Pool: p.Name, Owner: owner})
	case b.Owner.Node == "" || b.Owner.Node == owner.Node:
		return fmt.Errorf("address %s: %w: its block %s changes hands: try again", addr, ipam.ErrTaken, b.CIDR)
	}
	w := ipam.Want{CIDR: netip.PrefixFrom(addr, addr.BitLen()), Pod: h.PodName()}
	return a.obtain(ctx, b, w, func() bool { return a.has(addr) })
}

// has reports whether addr is the node's to hand out.
func (a *Allocator) has(addr netip.Addr) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	b, ours := a.blockOf(addr)
	return ours && a.valid(b.CIDR())
}
