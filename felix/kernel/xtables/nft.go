package xtables

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/kernel/nlsock"
	"github.com/koratnet/korat/policy/ir"
)

// NFT reads tables of the flavour over nf_tables.
type NFT struct {
	conn   *nlsock.Conn
	family byte
}

// OpenNFT opens a reader for one family in the network namespace of this thread.
func OpenNFT(f ir.Family) (*NFT, error) {
	conn, err := nlsock.Open(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	n := &NFT{conn: conn, family: unix.NFPROTO_IPV4}
	if f == ir.IPv6 {
		n.family = unix.NFPROTO_IPV6
	}
	return n, nil
}

// Close closes the reader.
func (n *NFT) Close() error { return n.conn.Close() }

func (n *NFT) request(kind uint16) *nlsock.Request {
	return nlsock.NewRequest(unix.NFNL_SUBSYS_NFTABLES<<8|kind, 0, []byte{n.family, unix.NFNETLINK_V0, 0, 0})
}

// Generation returns a number that every change to any table of the namespace
// changes.
func (n *NFT) Generation() (uint32, error) {
	var generation uint32
	err := n.conn.Get(n.request(unix.NFT_MSG_GETGEN), func(body []byte) error {
		for kind, value := range attributes(body) {
			if kind == unix.NFTA_GEN_ID && len(value) == 4 {
				generation = binary.BigEndian.Uint32(value)
			}
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("ask for the generation of nf_tables: %w", err)
	}
	return generation, nil
}

// Table reads a table, the rules of those of its chains for which own is true and
// of built-in ones; others are left out. A table that nobody has made is empty.
//
// It asks chain by chain: for a list of a whole table, the kernel begins anew at
// the first rule for every few hundred that it has told.
func (n *NFT) Table(table string, own func(chain string) bool) ([]Chain, error) {
	chains, err := n.chains(table, own)
	if err != nil {
		return nil, err
	}
	for i := range chains {
		c := &chains[i]
		if c.Rules, err = n.Rules(table, c.Name); err != nil {
			return nil, err
		}
	}
	return chains, nil
}

// Rules reads the rules of a chain. One that is not there has none.
func (n *NFT) Rules(table, chain string) ([]Rule, error) {
	var rules []Rule
	request := n.request(unix.NFT_MSG_GETRULE).String(unix.NFTA_RULE_TABLE, table).String(unix.NFTA_RULE_CHAIN, chain)
	err := n.conn.Dump(request, func() { rules = nil }, func(_ uint16, body []byte) error {
		rules = append(rules, nftRule(body))
		return nil
	})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("list rules of chain %s of table %s: %w", chain, table, err)
	}
	return rules, nil
}

// chains lists the built-in chains of a table and those that are own, without rules.
func (n *NFT) chains(table string, own func(string) bool) ([]Chain, error) {
	var chains []Chain
	err := n.conn.Dump(n.request(unix.NFT_MSG_GETCHAIN), func() { chains = nil }, func(_ uint16, body []byte) error {
		c, in := Chain{}, ""
		for kind, value := range attributes(body) {
			switch kind {
			case unix.NFTA_CHAIN_TABLE:
				in = nlsock.Text(value)
			case unix.NFTA_CHAIN_NAME:
				c.Name = nlsock.Text(value)
			case unix.NFTA_CHAIN_HOOK:
				c.Builtin = true
			}
		}
		if in == table && (c.Builtin || own(c.Name)) {
			chains = append(chains, c)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list chains: %w", err)
	}
	return chains, nil
}

// attributes yields those behind struct nfgenmsg, of four bytes.
func attributes(body []byte) iter.Seq2[uint16, []byte] {
	return nlsock.Attrs(body[min(4, len(body)):])
}

// nftRule reads a rule. Where comment and seal are depends on the version of the
// program that wrote it: in matches of the older flavour, or in user data and in
// the expressions that stand for a mark match.
func nftRule(body []byte) Rule {
	var r Rule
	for kind, value := range attributes(body) {
		switch kind {
		case unix.NFTA_RULE_EXPRESSIONS:
			r.expressions(value)
		case unix.NFTA_RULE_USERDATA:
			if c, ok := commentData(value); ok {
				r.Comment = c
			}
		}
	}
	return r
}

// expressions takes in those of a rule. A number that is compared with what an
// empty mask has left is a seal.
func (r *Rule) expressions(list []byte) {
	masked := false
	for _, expression := range nlsock.Attrs(list) {
		name, data := "", []byte(nil)
		for kind, value := range nlsock.Attrs(expression) {
			switch kind {
			case unix.NFTA_EXPR_NAME:
				name = nlsock.Text(value)
			case unix.NFTA_EXPR_DATA:
				data = value
			}
		}
		switch {
		case name == "match":
			r.nftMatch(data)
		case name == "cmp" && masked:
			if number := unequal(data); number != 0 {
				r.Seal = number
			}
		}
		masked = name == "bitwise" && emptyMask(data)
	}
}

// nftMatch takes in a match of the older flavour.
func (r *Rule) nftMatch(data []byte) {
	name := ""
	for kind, value := range nlsock.Attrs(data) {
		switch kind {
		case unix.NFTA_MATCH_NAME:
			name = nlsock.Text(value)
		case unix.NFTA_MATCH_INFO:
			r.match(name, value)
		}
	}
}

// emptyMask reports whether a bitwise expression leaves nothing of a number.
func emptyMask(data []byte) bool {
	for kind, value := range nlsock.Attrs(data) {
		if kind == unix.NFTA_BITWISE_MASK {
			mask := dataValue(value)
			return len(mask) == 4 && binary.NativeEndian.Uint32(mask) == 0
		}
	}
	return false
}

// unequal returns the number that a comparison demands not to find, else 0.
func unequal(data []byte) uint32 {
	number, not := uint32(0), false
	for kind, value := range nlsock.Attrs(data) {
		switch kind {
		case unix.NFTA_CMP_OP:
			not = len(value) == 4 && binary.BigEndian.Uint32(value) == unix.NFT_CMP_NEQ
		case unix.NFTA_CMP_DATA:
			if v := dataValue(value); len(v) == 4 {
				number = binary.NativeEndian.Uint32(v)
			}
		}
	}
	if !not {
		return 0
	}
	return number
}

// dataValue returns the bytes in nested data, nil if there are none.
func dataValue(nested []byte) []byte {
	for kind, value := range nlsock.Attrs(nested) {
		if kind == unix.NFTA_DATA_VALUE {
			return value
		}
	}
	return nil
}

// userComment is the kind of user data that is a comment (libnftnl's
// NFTNL_UDATA_RULE_COMMENT): kind and length in one byte each, then the text.
const userComment = 0

func commentData(data []byte) (string, bool) {
	for len(data) >= 2 && len(data) >= 2+int(data[1]) {
		value := data[2 : 2+int(data[1])]
		if data[0] == userComment {
			return nlsock.Text(value), true
		}
		data = data[2+len(value):]
	}
	return "", false
}
