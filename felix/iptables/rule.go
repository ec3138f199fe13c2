package iptables

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// rule is one rule without its chain's name and its comment.
type rule struct {
	spec string // matches and target in the words of iptables
	note string // for people: what the chain is for, printed in the comment
}

// chain is a chain with its rules, and the hash that each carries.
type chain struct {
	name   string
	rules  []rule
	hashes []string
}

// newChain hashes every rule together with the chain's name and the rules before
// it, so that two chains are equal when the lists of their hashes are.
func newChain(name string, rules []rule) chain {
	c := chain{name: name, rules: rules, hashes: make([]string, len(rules))}
	last := name
	for i, r := range rules {
		sum := sha256.Sum256([]byte(last + "\x00" + r.note + "\x00" + r.spec))
		last = hex.EncodeToString(sum[:6])
		c.hashes[i] = last
	}
	return c
}

// closedChain is what stands for a chain that cannot be as it should: nothing passes.
func closedChain(name, why string) chain {
	return newChain(name, []rule{{spec: "-j DROP", note: why}})
}

// body returns rule i as it stands after "-A chain ".
func (c chain) body(i int) string {
	note := ""
	if n := c.rules[i].note; n != "" {
		note = " " + printable(n)
	}
	return fmt.Sprintf(`-m comment --comment "%s%s%s" %s`, hashPrefix, c.hashes[i], note, c.rules[i].spec)
}

// hashPrefix begins the comment of every rule of ours.
const hashPrefix = "korat:"

// printable makes note fit into a comment (256 bytes) and safe between quotes,
// whatever a pod or policy may be called.
func printable(note string) string {
	note = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune(" ./:,_-", r):
			return r
		}
		return '?'
	}, note)
	return note[:min(len(note), 200)]
}

// ruleHash returns the hash in the comment of a rule printed by iptables-save,
// or "" when the rule is not ours.
func ruleHash(line string) string {
	_, rest, ok := strings.Cut(line, " --comment ")
	if !ok {
		return ""
	}
	rest, ok = strings.CutPrefix(strings.TrimPrefix(rest, `"`), hashPrefix)
	if !ok {
		return ""
	}
	if end := strings.IndexAny(rest, " \""); end >= 0 {
		rest = rest[:end]
	}
	return rest
}

// mark matches packets of which the bits are set, noMark packets of which they
// are clear; setMark and clearMark are targets.
func mark(bits uint32) string      { return fmt.Sprintf("-m mark --mark %#x/%#x", bits, bits) }
func noMark(bits uint32) string    { return fmt.Sprintf("-m mark --mark 0x0/%#x", bits) }
func setMark(bits uint32) string   { return fmt.Sprintf("-j MARK --set-xmark %#x/%#x", bits, bits) }
func clearMark(bits uint32) string { return fmt.Sprintf("-j MARK --set-xmark 0x0/%#x", bits) }

// words joins the parts of a spec that are not empty.
func words(parts ...string) string {
	kept := make([]string, 0, len(parts))
	for _, p := range parts {
		if p != "" {
			kept = append(kept, p)
		}
	}
	return strings.Join(kept, " ")
}

func specs(lines ...string) []rule {
	rules := make([]rule, len(lines))
	for i, l := range lines {
		rules[i] = rule{spec: l}
	}
	return rules
}
