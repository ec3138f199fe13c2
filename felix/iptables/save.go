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
	seen := map[string]bool{} // built-in chains with rules
	for len(out) > 0 {
		line, rest, _ := bytes.Cut(out, []byte("\n"))
		out = rest
		switch {
		case bytes.HasPrefix(line, []byte(":")):
			name, _, _ := strings.Cut(string(line[1:]), " ")
			if ownName.MatchString(name) {
				c.chains[name] = nil
			}
		case bytes.HasPrefix(line, []byte("-A ")):
			c.rule(string(line[len("-A "):]), seen)
		}
	}
	return c
}

func (c *content) rule(spec string, seen map[string]bool) {
	name, _, _ := strings.Cut(spec, " ")
	hash := ruleHash(spec)
	if _, own := c.chains[name]; own {
		c.chains[name] = append(c.chains[name], hash)
		return
	}
	first := !seen[name]
	seen[name] = true
	if hash == "" {
		return
	}
	h := c.hooks[name]
	if first {
		h.first = hash
	}
	h.specs, h.hash = append(h.specs, spec), append(h.hash, hash)
	c.hooks[name] = h
}
