package nft

import (
	"maps"
	"slices"

	"github.com/koratnet/korat/felix/kernel/nftables"
	"github.com/koratnet/korat/policy/ir"
)

// printed is a program in one of the ways in which its chain is written.
type printed struct {
	ir.ProgramID
	outcome
}

// user is who has programs asked: the endpoint of a pod, by its interface, or
// with none all the host endpoints.
type user struct{ endpoint string }

// chains keep book of the chains in the table: who asks which programs, and which
// constants chains need.
type chains struct {
	table *nftables.Table
	// inherited are the chains that an earlier life of the agent left; they are not
	// written. nil once all is known.
	inherited map[string]struct{}
	users     map[printed]map[user]struct{}
	uses      map[user]map[printed]struct{}
	needs     map[string][]string // constants by the chain that needs them
	needed    map[string]int      // by how many chains each constant is needed
}

func newChains(t *nftables.Table) *chains {
	return &chains{
		table: t, inherited: map[string]struct{}{},
		users: map[printed]map[user]struct{}{}, uses: map[user]map[printed]struct{}{},
		needs: map[string][]string{}, needed: map[string]int{},
	}
}

func (c *chains) inherit(name string) { c.inherited[name] = struct{}{} }

func (c *chains) inherits(name string) bool {
	_, ok := c.inherited[name]
	return ok
}

// want writes a chain and the constants that it needs, unless it was inherited.
func (c *chains) want(chain nftables.Chain, needs constants) {
	if c.inherits(chain.Name) {
		return
	}
	old := c.needs[chain.Name]
	for name, one := range needs {
		if c.needed[name]++; c.needed[name] == 1 {
			c.table.WantSet(nftables.Set{Name: name, Key: one.key, Interval: one.interval})
			c.table.SetMembers(name, one.members...)
		}
	}
	c.table.WantChain(chain)
	if delete(c.needs, chain.Name); len(needs) > 0 {
		c.needs[chain.Name] = slices.Collect(maps.Keys(needs))
	}
	c.free(old)
}

// wantIf writes a chain that needs no constants, or takes it away.
func (c *chains) wantIf(wanted bool, chain nftables.Chain) {
	if wanted {
		c.want(chain, nil)
	} else {
		c.unwant(chain.Name)
	}
}

func (c *chains) unwant(name string) {
	c.table.UnwantChain(name)
	c.free(c.needs[name])
	delete(c.needs, name)
}

// unwantOthers takes away the chains of old that are not in next.
func (c *chains) unwantOthers(old, next []string) {
	for _, name := range old {
		if !slices.Contains(next, name) {
			c.unwant(name)
		}
	}
}

func (c *chains) free(constants []string) {
	for _, name := range constants {
		if c.needed[name]--; c.needed[name] == 0 {
			delete(c.needed, name)
			c.table.UnwantSet(name)
		}
	}
}

// use makes all the programs that u has asked. It returns those of which rules
// have to be written, here or there, because they came to have users, more than
// one, or only one again. Chains that nobody asks any more are taken away.
func (c *chains) use(u user, all []printed) []ir.ProgramID {
	old := c.uses[u]
	next := make(map[printed]struct{}, len(all))
	var turned []ir.ProgramID
	for _, p := range all {
		next[p] = struct{}{}
		if c.users[p] == nil {
			c.users[p] = map[user]struct{}{}
		}
		if _, already := c.users[p][u]; !already {
			c.users[p][u] = struct{}{}
			turned = append(turned, p.ProgramID)
		}
	}
	for p := range old {
		if _, still := next[p]; !still {
			if delete(c.users[p], u); len(c.users[p]) == 0 {
				delete(c.users, p)
				c.unwant(programChain(p.ProgramID, p.outcome))
			}
			turned = append(turned, p.ProgramID)
		}
	}
	if c.uses[u] = next; len(next) == 0 {
		delete(c.uses, u)
	}
	return turned
}

func (c *chains) used(p printed) bool { return len(c.users[p]) > 0 }

// sole reports whether a single endpoint of a pod asks a program.
func (c *chains) sole(id ir.ProgramID) bool {
	count := 0
	for o := range ownChains {
		for u := range c.users[printed{id, o}] {
			if count++; count > 1 || u.endpoint == "" {
				return false
			}
		}
	}
	return count == 1
}

// endpointsOf returns the pods' endpoints that have a program asked.
func (c *chains) endpointsOf(id ir.ProgramID) map[string]struct{} {
	all := map[string]struct{}{}
	for o := range ownChains {
		for u := range c.users[printed{id, o}] {
			if u.endpoint != "" {
				all[u.endpoint] = struct{}{}
			}
		}
	}
	return all
}
