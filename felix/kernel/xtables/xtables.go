// Package xtables reads the rules that iptables has put into the kernel, of both
// flavours, without starting a program: iptables-save takes seconds where there
// are 10,000 chains, this takes a tenth. What is read are the chains, and of each
// rule the comment and the seal, by which felix/iptables knows its own. It writes
// nothing.
package xtables

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/koratnet/korat/policy/ir"
)

// Chain is one chain of a table.
type Chain struct {
	Name    string
	Builtin bool   // the kernel enters it by itself
	Rules   []Rule // in order; a built-in chain's policy is no rule
}

// Rule is what is read of a rule.
type Rule struct {
	Comment string // "" where there is none
	// Seal is the value that a rule compares with nothing at all: that of a mark
	// match which says no ("!") and whose mask is empty. Such a match is true of every
	// packet, and all that it does is to carry a number. 0 where there is none.
	Seal uint32
}

// match takes in a match of the rule, by its name and its structure in the kernel.
func (r *Rule) match(name string, info []byte) {
	switch {
	case name == "comment" && r.Comment == "":
		r.Comment = text(info)
	case name == "mark" && len(info) >= markSize && binary.NativeEndian.Uint32(info[4:]) == 0 && info[8] != 0:
		r.Seal = binary.NativeEndian.Uint32(info)
	}
}

// markSize is how much of struct xt_mark_mtinfo1 is used: value, mask, and whether
// the match says no.
const markSize = 9

// errBroken says that an answer of the kernel does not hold together.
var errBroken = errors.New("the kernel's answer is broken")

// hookNames are the built-in chains by the number of their hook.
var hookNames = [...]string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}

// bad is the panic for a family that is neither IPv4 nor IPv6.
func bad(f ir.Family) string { return fmt.Sprintf("bug: address family %d", f) }
