// Package xtables reads the rules that iptables has put into the kernel, of both
// flavours, without starting a program: iptables-save takes seconds where there
// are 10,000 chains, this takes a tenth. What is read are the chains and the
// comment of each rule; felix/iptables knows its rules by their comments. It
// writes nothing.
package xtables

import (
	"errors"
	"fmt"

	"github.com/koratnet/korat/policy/ir"
)

// Chain is one chain of a table.
type Chain struct {
	Name    string
	Builtin bool // the kernel enters it by itself
	// Comments has the comment of every rule, in order, "" where there is none. A
	// built-in chain's policy is no rule.
	Comments []string
}

// errBroken says that an answer of the kernel does not hold together.
var errBroken = errors.New("the kernel's answer is broken")

// hookNames are the built-in chains by the number of their hook.
var hookNames = [...]string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}

// bad is the panic for a family that is neither IPv4 nor IPv6.
func bad(f ir.Family) string { return fmt.Sprintf("bug: address family %d", f) }
