package iptables

import "github.com/koratnet/korat/policy/ir"

// library keeps the chains of policies in one table: those that other chains of
// the table lead to, and no others.
type library struct {
	table   *table
	refs    map[string]map[ir.ProgramID]struct{} // by who leads to them
	users   map[ir.ProgramID]map[string]struct{} // the same, by policy
	byChain map[string]ir.ProgramID
}

func newLibrary(t *table) *library {
	return &library{
		table: t, refs: map[string]map[ir.ProgramID]struct{}{}, users: map[ir.ProgramID]map[string]struct{}{},
		byChain: map[string]ir.ProgramID{},
	}
}

// lend says to which policies user's chains lead from now on. render makes the
// chain of one that nobody led to before.
func (l *library) lend(user string, ids map[ir.ProgramID]struct{}, render func(ir.ProgramID) chain) {
	for id := range ids {
		if l.users[id] == nil {
			l.users[id] = map[string]struct{}{}
			l.byChain[programChain(id)] = id
			l.table.set(render(id))
		}
		l.users[id][user] = struct{}{}
	}
	for id := range l.refs[user] {
		if _, still := ids[id]; !still {
			l.giveBack(id, user)
		}
	}
	if len(ids) == 0 {
		delete(l.refs, user)
	} else {
		l.refs[user] = ids
	}
}

func (l *library) giveBack(id ir.ProgramID, user string) {
	delete(l.users[id], user)
	if len(l.users[id]) == 0 {
		delete(l.users, id)
		delete(l.byChain, programChain(id))
		l.table.unset(programChain(id))
	}
}

// renew renders a policy anew, if its chain is in use.
func (l *library) renew(id ir.ProgramID, render func(ir.ProgramID) chain) {
	if len(l.users[id]) > 0 {
		l.table.set(render(id))
	}
}
