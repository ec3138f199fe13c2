// Package vip decides which addresses services of type LoadBalancer get from the
// pools that are for them. It is pure: what services have now is all the state
// there is, so that who decides may change at any time. felix/controller calls it.
//
// An address belongs to one service. What a service has it keeps as long as it
// may; of two that say to have one address the older has it.
package vip

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/koratnet/korat/ipam"
	"github.com/koratnet/korat/policy/selector"
)

// Service asks for addresses.
type Service struct {
	Name    string // namespace/name
	Created time.Time
	// Families are the wanted ones as address lengths, 32 and 128, the first one
	// first. With Lenient those after the first are wanted only where there is a
	// pool of them.
	Families []int
	Lenient  bool
	// Namespace are the labels of its namespace, which pools select; Known is
	// false when nobody could tell them.
	Namespace selector.Labels
	Known     bool
	Requested []netip.Addr // the very addresses, at most one of a family
	Pools     []string     // by name, to be used in this order; empty: those whose selectors choose the namespace
	Has       []netip.Addr // what its status says
}

// Reason is why a service has not all that it wants, in one word for programs.
type Reason string

// The reasons.
const (
	NoPool       Reason = "NoPool"       // that may be used
	Exhausted    Reason = "Exhausted"    // every pool that may be used
	AddressTaken Reason = "AddressTaken" // by another service
	Unavailable  Reason = "Unavailable"  // the requested address is in no pool that may be used, or reserved
)

// Grant is what a service is to have: all that it wants, or with a Reason what it
// had, or with Lenient what there was.
type Grant struct {
	Addrs   []netip.Addr // in the order of its families
	Reason  Reason       // empty: it has all
	Message string       // for people
}

// Usable reports whether services get addresses of p: it is for nothing else, since
// nodes claim blocks of the others.
func Usable(p ipam.Pool) bool { return p.Allows(ipam.LoadBalancer) && p.Uses == ipam.LoadBalancer }

// Plan returns the grants of services, in their order. It depends on nothing
// else, and on neither order: the same things are decided the same way again.
func Plan(services []Service, pools []ipam.Pool, reserved []netip.Prefix) []Grant {
	p := &plan{
		pools: slices.SortedFunc(slices.Values(pools), func(a, b ipam.Pool) int { return cmp.Compare(a.Name, b.Name) }),
		next:  map[string]netip.Addr{}, reserved: reserved, holder: map[netip.Addr]string{},
	}
	order := make([]int, len(services))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int {
		a, b := services[i], services[j]
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Name, b.Name))
	})
	grants := make([]Grant, len(services))
	for _, i := range order {
		grants[i].Addrs = p.keep(services[i])
	}
	for _, wishes := range []bool{true, false} { // who asks for one address goes before who takes any
		for _, i := range order {
			if s := services[i]; len(s.Requested) > 0 == wishes {
				p.grant(s, &grants[i])
			}
		}
	}
	return grants
}

// plan is a plan that is being made.
type plan struct {
	pools    []ipam.Pool // sorted by name
	reserved []netip.Prefix
	holder   map[netip.Addr]string
	next     map[string]netip.Addr // by pool: all before it are taken
}

// keep returns what s has and may keep. A pool that is disabled, or for others now,
// keeps whom it has; one that is gone does not.
func (p *plan) keep(s Service) (kept []netip.Addr) {
	for _, f := range s.Families {
		for _, a := range s.Has {
			if a.BitLen() != f || p.holder[a] != "" || p.poolOf(a) == nil {
				continue
			}
			if r := requested(s, f); r.IsValid() && r != a {
				continue
			}
			p.holder[a] = s.Name
			kept = append(kept, a)
			break
		}
	}
	return kept
}

// grant completes what s keeps. New addresses are given only when all that it
// wants are there.
func (p *plan) grant(s Service, g *Grant) {
	var all, fresh []netip.Addr
	for i, f := range s.Families {
		if at := slices.IndexFunc(g.Addrs, func(a netip.Addr) bool { return a.BitLen() == f }); at >= 0 {
			all = append(all, g.Addrs[at])
			continue
		}
		a, reason, message := p.find(s, f)
		optional := s.Lenient && i > 0
		switch {
		case reason == "":
			p.holder[a] = s.Name
			all, fresh = append(all, a), append(fresh, a)
		case optional && reason == NoPool:
		case optional:
			g.Reason, g.Message = reason, message
		default:
			for _, a := range fresh {
				delete(p.holder, a)
				p.giveBack(a)
			}
			g.Reason, g.Message = reason, message
			return
		}
	}
	g.Addrs = all
}

// find returns a free address of a family that s may have.
func (p *plan) find(s Service, family int) (netip.Addr, Reason, string) {
	if r := requested(s, family); r.IsValid() {
		reason, message := p.refusal(r)
		return r, reason, message
	}
	tried := ""
	for _, pool := range p.choices(s, family) {
		if a := p.free(pool); a.IsValid() {
			return a, "", ""
		}
		tried += " " + pool.Name
	}
	if tried == "" {
		return netip.Addr{}, NoPool, fmt.Sprintf("no IPPool of IPv%d may be used: expected one that allows the use LoadBalancer alone, is Ready, and selects the service's namespace", version(family))
	}
	return netip.Addr{}, Exhausted, fmt.Sprintf("every address of the IPPools%s is in use or reserved: add an IPPool", tried)
}

// refusal says why nobody can have a now; an empty Reason means that it is free.
func (p *plan) refusal(a netip.Addr) (Reason, string) {
	pool := p.poolOf(a)
	switch {
	case p.holder[a] != "":
		return AddressTaken, fmt.Sprintf("%s is the address of service %s", a, p.holder[a])
	case pool == nil || !Usable(*pool):
		return Unavailable, fmt.Sprintf("%s is in no IPPool that allows the use LoadBalancer alone", a)
	case pool.Disabled:
		return Unavailable, fmt.Sprintf("%s is in IPPool %s, which is disabled", a, pool.Name)
	case p.reservation(a).IsValid():
		return Unavailable, fmt.Sprintf("%s is reserved, by %s of an IPReservation", a, p.reservation(a))
	}
	return "", ""
}

// choices returns the pools that s may use, in order.
func (p *plan) choices(s Service, family int) (choices []ipam.Pool) {
	for _, name := range s.Pools {
		for _, pool := range p.pools {
			if pool.Name == name {
				choices = append(choices, pool)
			}
		}
	}
	if len(s.Pools) == 0 {
		choices = slices.DeleteFunc(slices.Clone(p.pools), func(pool ipam.Pool) bool {
			return pool.Manual || pool.Namespaces != nil && (!s.Known || !pool.Namespaces.Matches(s.Namespace))
		})
	}
	return slices.DeleteFunc(choices, func(pool ipam.Pool) bool {
		return pool.Disabled || !Usable(pool) || pool.CIDR.Addr().BitLen() != family
	})
}

// free returns the lowest free address of a pool, invalid if there is none.
func (p *plan) free(pool ipam.Pool) netip.Addr {
	a, begun := p.next[pool.Name]
	if !begun {
		a = pool.CIDR.Addr()
	}
	for a.IsValid() && pool.CIDR.Contains(a) {
		if r := p.reservation(a); r.IsValid() {
			a = last(r).Next()
		} else if p.holder[a] != "" {
			a = a.Next()
		} else {
			p.next[pool.Name] = a
			return a
		}
	}
	p.next[pool.Name] = netip.Addr{}
	return netip.Addr{}
}

// giveBack makes free look at a again.
func (p *plan) giveBack(a netip.Addr) {
	pool := p.poolOf(a)
	if n, begun := p.next[pool.Name]; begun && (!n.IsValid() || a.Less(n)) {
		p.next[pool.Name] = a
	}
}

func (p *plan) poolOf(a netip.Addr) *ipam.Pool {
	for i := range p.pools {
		if p.pools[i].CIDR.Contains(a) {
			return &p.pools[i]
		}
	}
	return nil
}

// reservation returns the widest range that reserves a, or the zero Prefix.
func (p *plan) reservation(a netip.Addr) (widest netip.Prefix) {
	for _, r := range p.reserved {
		if r.Contains(a) && (!widest.IsValid() || r.Bits() < widest.Bits()) {
			widest = r
		}
	}
	return widest
}

func requested(s Service, family int) netip.Addr {
	for _, a := range s.Requested {
		if a.BitLen() == family {
			return a
		}
	}
	return netip.Addr{}
}

// last returns the last address of r.
func last(r netip.Prefix) netip.Addr {
	b := r.Addr().AsSlice()
	for i := r.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func version(family int) int {
	if family == 32 {
		return 4
	}
	return 6
}
