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
		err := n.rules(table, c.Name, func() { c.Comments = nil }, func(comment string) { c.Comments = append(c.Comments, comment) })
		if err != nil {
			return nil, err
		}
	}
	return chains, nil
}

// Head returns the comment of the first rule of a chain, "" if there is none.
func (n *NFT) Head(table, chain string) (string, error) {
	head, seen := "", false
	err := n.rules(table, chain, func() { head, seen = "", false }, func(comment string) {
		if !seen {
			head, seen = comment, true
		}
	})
	return head, err
}

// rules tells the comments of the rules of a chain. One that is gone has none.
func (n *NFT) rules(table, chain string, forget func(), visit func(comment string)) error {
	request := n.request(unix.NFT_MSG_GETRULE).String(unix.NFTA_RULE_TABLE, table).String(unix.NFTA_RULE_CHAIN, chain)
	err := n.conn.Dump(request, forget, func(_ uint16, body []byte) error {
		visit(commentOf(body))
		return nil
	})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("list rules of chain %s of table %s: %w", chain, table, err)
	}
	return nil
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

// commentOf reads the comment of a rule. Where it is depends on the version of the
// program that wrote it: an expression, or the user data.
func commentOf(rule []byte) string {
	found := ""
	for kind, value := range attributes(rule) {
		switch kind {
		case unix.NFTA_RULE_EXPRESSIONS:
			for _, expression := range nlsock.Attrs(value) {
				if c, ok := commentMatch(expression); ok {
					found = c
					break
				}
			}
		case unix.NFTA_RULE_USERDATA:
			if c, ok := commentData(value); ok {
				found = c
			}
		}
	}
	return found
}

// commentMatch reads the expression that stands for "-m comment".
func commentMatch(expression []byte) (string, bool) {
	isMatch := false
	for kind, value := range nlsock.Attrs(expression) {
		switch {
		case kind == unix.NFTA_EXPR_NAME:
			isMatch = nlsock.Text(value) == "match"
		case kind == unix.NFTA_EXPR_DATA && isMatch:
			return matchInfo(value)
		}
	}
	return "", false
}

func matchInfo(data []byte) (string, bool) {
	isComment := false
	for kind, value := range nlsock.Attrs(data) {
		switch {
		case kind == unix.NFTA_MATCH_NAME:
			if isComment = nlsock.Text(value) == "comment"; !isComment {
				return "", false
			}
		case kind == unix.NFTA_MATCH_INFO && isComment:
			return nlsock.Text(value), true
		}
	}
	return "", false
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
