package iptables

import (
	"crypto/sha256"
	"encoding/binary"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// rule is one rule without its chain's name and its comment.
type rule struct {
	spec string // matches and target in the words of iptables
	note string // for people: what the chain is for, printed in a comment
	// tag is that of desired.Reason where the rule leads to a chain that drops for
	// it; such a chain is there while rules lead to it.
	tag string
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
		last = sealText(max(1, binary.BigEndian.Uint32(sum[:])))
		c.hashes[i] = last
	}
	return c
}

// sealText is a hash as iptables prints it in a rule, "" for that of a rule which is
// not ours.
func sealText(hash uint32) string {
	if hash == 0 {
		return ""
	}
	return strconv.FormatUint(uint64(hash), 16)
}

// seal is the match that carries a hash: it compares it with nothing of the
// packet's mark, and is always true. In a comment it would be longer, and take ten
// times as long to evaluate where iptables speaks to nf_tables.
func seal(hash string) string { return "-m mark ! --mark 0x" + hash + "/0x0" }

// sealPattern finds a seal in a rule that iptables has printed.
var sealPattern = regexp.MustCompile(` -m mark ! --mark 0x([0-9a-f]+)/0x0 `)

// closedChain is what stands for a chain that cannot be as it should: nothing passes.
func closedChain(name, why string) chain {
	return newChain(name, []rule{{spec: dropNow, note: why}})
}

// dropNow drops and tells nobody.
const dropNow = "-j DROP"

// tags returns the reasons for which c drops, each once.
func (c chain) tags() []string {
	var tags []string
	for _, r := range c.rules {
		if r.tag != "" && !slices.Contains(tags, r.tag) {
			tags = append(tags, r.tag)
		}
	}
	return tags
}

// body returns rule i as it stands after "-A chain ". The kernel evaluates seal and
// comment like matches: behind the others.
func (c chain) body(i int) string {
	r := c.rules[i]
	comment := ""
	if r.note != "" {
		comment = `-m comment --comment "` + printable(r.note) + `"`
	}
	matches, target := r.split()
	return words(matches, seal(c.hashes[i]), comment, target)
}

// split returns the matches and the target.
func (r rule) split() (matches, target string) {
	for at := 0; at+3 <= len(r.spec); at++ {
		if word := r.spec[at : at+3]; (word == "-j " || word == "-g ") && (at == 0 || r.spec[at-1] == ' ') {
			return strings.TrimSpace(r.spec[:at]), r.spec[at:]
		}
	}
	return r.spec, ""
}

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

// ruleHash returns the hash in a rule that iptables printed, or "".
func ruleHash(line string) string {
	if found := sealPattern.FindStringSubmatch(line); found != nil {
		return found[1]
	}
	return ""
}

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

// verdict is a target that ends a packet's way, and the tag if it is a drop that
// is told.
type verdict struct{ target, tag string }

// when writes the rule that has verdict v for what match matches.
func (v verdict) when(match string) rule { return rule{spec: words(match, v.target), tag: v.tag} }

func specs(lines ...string) []rule {
	rules := make([]rule, len(lines))
	for i, l := range lines {
		rules[i] = rule{spec: l}
	}
	return rules
}
