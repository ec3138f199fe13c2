package nft

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/nftables"
	"github.com/koratnet/korat/policy/ir"
)

var errPending = errors.New("rules are not in the kernel yet")

// Closed implements apply.Gated: the endpoints whose rules, or whose policies'
// rules, are not in the kernel as they should be.
func (f *Firewall) Closed() map[string]error {
	closed := map[string]error{}
	blame := func(iface string, err error) {
		if closed[iface] == nil {
			closed[iface] = err
		}
	}
	for iface, err := range f.unusable {
		blame(iface, err)
	}
	for iface := range f.pending {
		if f.failure != nil {
			blame(iface, f.failure)
		} else {
			blame(iface, errPending)
		}
	}
	for o, err := range f.table.Refused() {
		err = fmt.Errorf("%s: %w", o, err)
		for _, iface := range f.blamed(o) {
			blame(iface, err)
		}
	}
	return closed
}

// blamed returns the endpoints that are not as wanted because the kernel refused o.
func (f *Firewall) blamed(o nftables.Object) []string {
	switch {
	case o.Kind == nftables.AChain:
		return f.usersOfChain(o.Name)
	case o.Kind == nftables.ASet && o.Key != "":
		return f.usersOfSet(o.Name)
	case o.Kind == nftables.ASet: // the chains that need it are refused too
		return nil
	case o.Key != "" && !strings.HasPrefix(o.Name, hostsPrefix):
		iface := strings.TrimRight(string(o.Key[:interfaceBytes]), "\x00")
		if _, ok := f.endpoints[iface]; ok {
			return []string{iface}
		}
		return nil
	}
	return f.all()
}

// all: what everybody goes through is not as it should be.
func (f *Firewall) all() []string {
	var all []string
	for iface := range f.endpoints {
		all = append(all, iface)
	}
	return all
}

func (f *Firewall) usersOfChain(name string) []string {
	if strings.HasPrefix(name, hostsPrefix) {
		return nil
	}
	for iface, own := range f.written {
		if slices.Contains(own, name) {
			return []string{iface}
		}
	}
	for p, users := range f.chains.users {
		if programChain(p.ProgramID, p.outcome) == name {
			var all []string
			for u := range users {
				if u.endpoint != "" {
					all = append(all, u.endpoint)
				}
			}
			return all
		}
	}
	return f.all()
}

// usersOfSet returns the endpoints of which a policy names a set, by its name in
// the table.
func (f *Firewall) usersOfSet(name string) []string {
	var all []string
	for id, p := range f.programs {
		if names(p, name) {
			for iface := range f.chains.endpointsOf(id) {
				all = append(all, iface)
			}
		}
	}
	return all
}

func names(p *ir.Program, set string) bool {
	for i := range p.Rules {
		r := &p.Rules[i]
		for _, list := range [][]ir.SetID{
			r.SrcSets, r.DstSets, r.NotSrcSets, r.NotDstSets, r.SrcPortSets, r.DstPortSets, r.NotSrcPortSets, r.NotDstPortSets,
		} {
			for _, id := range list {
				for _, f := range bothFamilies {
					if desired.SetName(id, f) == set {
						return true
					}
				}
			}
		}
	}
	return false
}
