package controller

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	koratv1 "github.com/koratnet/korat/api/v1"
)

// groupSize is how many nodes a group of automatic reflectors has: as many clients
// as one reflector serves within two seconds after a restart.
const groupSize = 100

// firstGroup is before the first cluster id of a group. The range is nobody's.
var firstGroup = netip.MustParseAddr(koratv1.DefaultClusterID).Prev()

// A member is what the choice of reflectors depends on of a node.
type member struct {
	name, zone string
	asn        int64
	candidate  bool // it may reflect
	leaving    bool // it drains, or its agent is silent
	settled    bool // nearly all of its sessions are up
	now        koratv1.Reflection
}

// home is where a group lives: reflectors of other AS are none of a node's.
type home struct {
	asn  int64
	zone string
}

// reflections says which part every member has to have: groups of at most
// groupSize, as long as there are that many nodes, none of which spans a zone, and
// in each perZone reflectors. It moves nobody without need: a member stays in its
// group, and a reflector that has to go stays until others do its work. It is a
// function of what is now, so that whoever leads goes on where another stopped.
func reflections(members []member, perZone int) map[string]koratv1.Reflection {
	members = slices.Clone(members)
	slices.SortFunc(members, func(a, b member) int { return strings.Compare(a.name, b.name) })
	homes := map[home][]*member{}
	for i := range members {
		at := home{members[i].asn, members[i].zone}
		homes[at] = append(homes[at], &members[i])
	}
	order := slices.SortedFunc(maps.Keys(homes), func(a, b home) int { return cmp.Or(cmp.Compare(a.asn, b.asn), strings.Compare(a.zone, b.zone)) })
	owner := owners(homes, order)
	next := groupIDs(owner)
	out := map[string]koratv1.Reflection{}
	for _, at := range order {
		for id, group := range grouped(homes[at], at, owner, next) {
			for name, role := range roles(group, perZone) {
				out[name] = koratv1.Reflection{ClusterID: id, Role: role}
			}
		}
	}
	return out
}

// owners says whose each group is: of the home that has a reflector of it, and of
// several, as after a node moved, the one with most members.
func owners(homes map[home][]*member, order []home) map[string]home {
	type claim struct{ reflectors, members int }
	best := map[string]claim{}
	owner := map[string]home{}
	for _, at := range order {
		claims := map[string]claim{}
		for _, m := range homes[at] {
			c := claims[m.now.ClusterID]
			c.members++
			if m.now.Role == koratv1.RoleReflector {
				c.reflectors = 1
			}
			claims[m.now.ClusterID] = c
		}
		for id, c := range claims {
			b, taken := best[id]
			if id != "" && (!taken || c.reflectors > b.reflectors || c.reflectors == b.reflectors && c.members > b.members) {
				best[id], owner[id] = c, at
			}
		}
	}
	return owner
}

// groupIDs returns a function that gives cluster ids that no group has.
func groupIDs(taken map[string]home) func() string {
	id := firstGroup
	return func() string {
		for id = id.Next(); ; id = id.Next() {
			if _, is := taken[id.String()]; !is {
				return id.String()
			}
		}
	}
}

// grouped puts the members of a home into groups by cluster id: into their own, if
// the home has it, else into the smallest.
func grouped(members []*member, at home, owner map[string]home, next func() string) map[string][]*member {
	groups := map[string][]*member{}
	var homeless []*member
	for _, m := range members {
		if where, is := owner[m.now.ClusterID]; is && where == at {
			groups[m.now.ClusterID] = append(groups[m.now.ClusterID], m)
		} else {
			homeless = append(homeless, m)
		}
	}
	if len(homeless) > 0 {
		for len(groups)*groupSize < len(members) {
			groups[next()] = nil
		}
	}
	for _, m := range homeless {
		id := slices.MinFunc(slices.Sorted(maps.Keys(groups)), func(a, b string) int { return cmp.Compare(len(groups[a]), len(groups[b])) })
		groups[id] = append(groups[id], m)
	}
	return groups
}

// roles chooses the reflectors of a group, which is in the order of names.
func roles(group []*member, want int) map[string]koratv1.ReflectionRole {
	out := map[string]koratv1.ReflectionRole{}
	var able []*member // the best first
	for _, m := range group {
		out[m.name] = koratv1.RoleClient
		if m.candidate && !m.leaving {
			able = append(able, m)
		}
	}
	reflects := func(m *member) bool { return m.now.Role == koratv1.RoleReflector }
	rank := func(m *member) int {
		switch {
		case reflects(m) && m.settled:
			return 0
		case reflects(m):
			return 1
		}
		return 2
	}
	slices.SortStableFunc(able, func(a, b *member) int { return cmp.Compare(rank(a), rank(b)) })
	able = able[:min(want, len(able))]
	working := 0
	for _, m := range able {
		out[m.name] = koratv1.RoleReflector
		if reflects(m) && m.settled {
			working++
		}
	}
	if working == len(able) && working > 0 {
		return out
	}
	for _, m := range group { // who has to go stays until the new ones work
		if reflects(m) {
			out[m.name] = koratv1.RoleReflector
		}
	}
	return out
}

// nearlyUp reads a summary of sessions, such as "98/99": nine of ten are up.
func nearlyUp(summary string) bool {
	up, all, ok := strings.Cut(summary, "/")
	n, errUp := strconv.Atoi(up)
	of, errAll := strconv.Atoi(all)
	return ok && errUp == nil && errAll == nil && of > 0 && n*10 >= of*9
}
