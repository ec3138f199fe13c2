package nftables

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/kernel/nlsock"
)

// hash identifies the rules of a chain. It is cut from SHA-256 because people who
// may write policy must not be able to write two with the same hash.
type hash [16]byte

// content is what a chain holds, encoded.
type content struct {
	base  Hook // of a base chain, else zero
	hash  hash // of the rules
	rules []rule
	err   error // rules that could not even be encoded
}

// rule is one rule: its NFTA_RULE_EXPRESSIONS as the kernel takes them.
type rule struct {
	exprs   []byte
	comment string
}

// found is what is known of a chain in the kernel.
type found struct {
	base Hook
	hash hash // zero: rules that were not written by us like this
}

// chain is one chain of the table, wanted, there or both.
type chain struct {
	name             string
	wanted, fallback *content // fallback also when nil: see target
	have             *found
	refused          bool // wanted was refused, and fallback takes its place
	hopeless         bool // fallback was refused too, or the chain itself: left alone
}

// noRules is the hash of a chain without rules.
var noRules = sum(nil)

// closed is the Fallback that chains have that name none.
var closed = []Rule{{Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}}}

// want makes w the wanted content and reports whether that is news. Chains
// without hook share one content that is closed.
func (c *chain) want(w Chain, shut *content, scratch *nlsock.Messages) bool {
	var base Hook
	if w.Base != nil {
		base = *w.Base
	}
	next, changed := encode(base, w.Rules, c.wanted, scratch)
	other, otherChanged := shut, c.fallback != shut
	switch {
	case w.Fallback != nil:
		other, otherChanged = encode(base, w.Fallback, c.fallback, scratch)
	case w.Base != nil:
		other, otherChanged = encode(base, closed, c.fallback, scratch)
	}
	if !changed && !otherChanged {
		return false
	}
	c.wanted, c.fallback, c.refused, c.hopeless = next, other, false, false
	return true
}

func (c *chain) unwant() { c.wanted, c.fallback, c.refused, c.hopeless = nil, nil, false, false }

// target returns what is to be in the kernel now, or nil.
func (c *chain) target() *content {
	if c.wanted != nil && (c.refused || c.wanted.err != nil) {
		return c.fallback
	}
	return c.wanted
}

// settled reports whether nothing has to be written.
func (c *chain) settled(removal bool) bool {
	if c.hopeless {
		return true
	}
	if c.wanted == nil {
		return c.have == nil || !removal
	}
	to := c.target()
	return c.have != nil && c.have.base == to.base && c.have.hash == to.hash
}

// Prepared returns rules as WantChain takes them fastest: for those that are told
// again while others of their chains change. What cannot be encoded stays as it is,
// for WantChain to tell.
func Prepared(rules []Rule) []Rule {
	var scratch nlsock.Messages
	out := make([]Rule, len(rules))
	for i, r := range rules {
		scratch.Reset()
		scratch.Begin(0, 0, nil)
		start := len(scratch.Bytes())
		if out[i] = r; r.written == nil && expressions(&scratch, r.Exprs) == nil {
			out[i] = Rule{Comment: r.Comment, written: bytes.Clone(scratch.Bytes()[start:])}
		}
	}
	return out
}

// encode returns the encoded content, or was if it is the same, and whether it
// is not.
func encode(base Hook, rules []Rule, was *content, scratch *nlsock.Messages) (*content, bool) {
	scratch.Reset()
	scratch.Begin(0, 0, nil)
	start := len(scratch.Bytes())
	ends := make([]int, 0, len(rules))
	var err error
	for i, r := range rules {
		if r.written == nil {
			if e := expressions(scratch, r.Exprs); e != nil && err == nil {
				err = fmt.Errorf("rule %d: %w", i+1, e)
			}
		}
		ends = append(ends, len(scratch.Bytes())-start)
	}
	next := &content{base: base, rules: make([]rule, len(rules)), err: err}
	fill := func(all []byte) {
		begin := 0
		for i, end := range ends {
			if next.rules[i] = (rule{exprs: rules[i].written, comment: cut(rules[i].Comment)}); rules[i].written == nil {
				next.rules[i].exprs = all[begin:end:end]
			}
			begin = end
		}
	}
	fill(scratch.Bytes()[start:])
	next.hash = sum(next.rules)
	if was != nil && was.base == base && was.hash == next.hash && (was.err == nil) == (err == nil) {
		return was, false
	}
	fill(bytes.Clone(scratch.Bytes()[start:])) // scratch is used again
	return next, true
}

// expressions adds the attribute that holds what a rule consists of.
func expressions(m *nlsock.Messages, exprs []expr.Any) error {
	var err error
	m.Nest(unix.NFTA_RULE_EXPRESSIONS|nlsock.NestedFlag, func() {
		for _, e := range exprs {
			if err = putExpr(&m.Request, e); err != nil {
				return
			}
		}
	})
	return err
}

func sum(rules []rule) hash {
	h := sha256.New()
	var size [8]byte
	for _, r := range rules {
		binary.BigEndian.PutUint32(size[:], uint32(len(r.exprs)))
		binary.BigEndian.PutUint32(size[4:], uint32(len(r.comment)))
		h.Write(size[:])
		h.Write(r.exprs)
		h.Write([]byte(r.comment))
	}
	return hash(h.Sum(nil))
}

// maxComment leaves room for the rest of the user data, 256 bytes in all.
const maxComment = 100

func cut(comment string) string { return comment[:min(len(comment), maxComment)] }

// The user data of a rule are records of a type, a length and a value. The first
// kind is known to nft, as the comment; the second is ours: the hash of the
// chain's rules, which of them this is, and how many there are.
const (
	recordComment = 0
	recordOurs    = 0x4b
	oursSize      = len(hash{}) + 8
)

// userData returns the user data of rule i of c.
func (c *content) userData(i int) []byte {
	b := make([]byte, 0, 2+oursSize+2+maxComment+1)
	b = append(b, recordOurs, byte(oursSize))
	b = append(b, c.hash[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(i))
	b = binary.BigEndian.AppendUint32(b, uint32(len(c.rules)))
	if text := c.rules[i].comment; text != "" {
		b = append(b, recordComment, byte(len(text)+1))
		b = append(append(b, text...), 0)
	}
	return b
}

// readUserData is the reverse. ok is false for rules that are not ours.
func readUserData(b []byte) (h hash, i, count uint32, ok bool) {
	for len(b) >= 2 && len(b) >= 2+int(b[1]) {
		value := b[2 : 2+int(b[1])]
		if b[0] == recordOurs && len(value) == oursSize {
			rest := value[len(h):]
			return hash(value[:len(h)]), binary.BigEndian.Uint32(rest), binary.BigEndian.Uint32(rest[4:]), true
		}
		b = b[2+len(value):]
	}
	return h, 0, 0, false
}
