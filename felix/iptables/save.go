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

// parseSave reads what iptables-save printed of one table.
func parseSave(out []byte) content {
	c := content{chains: map[string][]string{}, hooks: map[string]hooked{}}
	builtin := map[string]int{} // built-in chains and how many of their rules came by
	for len(out) > 0 {
		line, rest, _ := bytes.Cut(out, []byte("\n"))
		out = rest
		switch {
		case bytes.HasPrefix(line, []byte(":")):
			name, rest, _ := strings.Cut(string(line[1:]), " ")
			if ownName.MatchString(name) {
				c.chains[name] = nil
			} else if !strings.HasPrefix(rest, "-") { // it has a policy
				builtin[name] = 0
			}
		case bytes.HasPrefix(line, []byte("-A ")):
			c.rule(string(line[len("-A "):]), builtin)
		}
	}
	return c
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
