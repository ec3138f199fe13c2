package iptables

import (
	"bytes"
	"strings"
)

// content is what of ours a table in the kernel holds.
type content struct {
	chains map[string][]string // hashes of the rules of own chains, "" for one that is not ours
	hooks  map[string]hooked   // own rules in built-in chains
}

// hooked are our rules in one built-in chain.
type hooked struct {
	first string   // hash of the chain's first rule, "" if that is not ours
	specs []string // as printed, after "-A "
	hash  []string // of each
}

// parseSave reads what tool.save printed of one table.
func parseSave(out []byte) content {
	c := content{chains: map[string][]string{}, hooks: map[string]hooked{}}
	builtin := map[string]int{} // built-in chains and how many of their rules came by
	for len(out) > 0 {
		line, rest, _ := bytes.Cut(out, []byte("\n"))
		out = rest
		if bytes.HasPrefix(line, []byte("-A ")) {
			c.rule(string(line[len("-A "):]), builtin)
			continue
		}
		name, hasPolicy, ok := declared(line)
		switch {
		case !ok:
		case ownName.MatchString(name):
			c.chains[name] = nil
		case hasPolicy:
			builtin[name] = 0
		}
	}
	return c
}

// declared returns the chain that a line tells the existence of, and whether it
// has a policy, as built-in ones have: ":INPUT ACCEPT [0:0]" or "-P INPUT ACCEPT",
// ":mine - [0:0]" or "-N mine".
func declared(line []byte) (name string, hasPolicy, ok bool) {
	switch {
	case bytes.HasPrefix(line, []byte(":")):
		name, rest, _ := strings.Cut(string(line[1:]), " ")
		return name, !strings.HasPrefix(rest, "-"), true
	case bytes.HasPrefix(line, []byte("-P ")):
		name, _, _ := strings.Cut(string(line[3:]), " ")
		return name, true, true
	case bytes.HasPrefix(line, []byte("-N ")):
		return string(line[3:]), false, true
	}
	return "", false, false
}

func (c *content) rule(spec string, builtin map[string]int) {
	name, _, _ := strings.Cut(spec, " ")
	if _, own := c.chains[name]; own {
		c.chains[name] = append(c.chains[name], ruleHash(spec))
		return
	}
	before, ok := builtin[name]
	if !ok {
		return // a chain of somebody else
	}
	builtin[name]++
	hash := ruleHash(spec)
	if hash == "" {
		return
	}
	h := c.hooks[name]
	if before == 0 {
		h.first = hash
	}
	h.specs, h.hash = append(h.specs, spec), append(h.hash, hash)
	c.hooks[name] = h
}
