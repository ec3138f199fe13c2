package nftables

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/kernel/nlsock"
)

// Resync reads back what is in the table, so that the next Apply mends what
// differs and tries again what was refused. It writes nothing.
func (t *Table) Resync(context.Context) error {
	clear(t.refused)
	for _, c := range t.chains {
		c.refused, c.hopeless = false, false
		if c.wanted != nil && c.wanted.err != nil {
			t.refused[Object{Kind: AChain, Name: c.name}] = c.wanted.err
		}
	}
	for _, s := range t.sets {
		s.refused, s.suspects = false, nil
		clear(s.bad)
	}
	if err := t.read(); err != nil {
		return fmt.Errorf("read table %s: %w", t.name, err)
	}
	return nil
}

// read reads what is in the table; what is in sets is read when it is needed.
func (t *Table) read() error {
	if err := t.readGeneration(); err != nil {
		return err
	}
	chains := map[string]*found{}
	sets := map[string]*header{}
	if err := t.readTable(); err != nil {
		return err
	}
	if t.there {
		if err := t.readChains(chains); err != nil {
			return fmt.Errorf("chains: %w", err)
		}
		for name, c := range chains {
			if err := t.readRules(name, c); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("rules of chain %s: %w", name, err)
			}
		}
		if err := t.readSets(sets); err != nil {
			return fmt.Errorf("sets: %w", err)
		}
	}
	for name := range chains {
		t.chain(name)
	}
	for name := range t.chains {
		t.sawChain(name, chains[name])
	}
	for name := range sets {
		t.set(name)
	}
	for name := range t.sets {
		t.sawSet(name, sets[name])
	}
	t.known = true
	return nil
}

// recheck reads again what others were heard to change.
func (t *Table) recheck() error {
	if _, err := t.ears.hear(); err != nil {
		return err
	}
	heard := t.ears.take()
	if later := int32(heard.generation - t.generation); heard.generation != 0 && later > 0 {
		t.generation = heard.generation
	}
	if heard.all || !t.known {
		t.known = false
		return nil
	}
	for name := range heard.chains {
		if err := t.readChain(name); err != nil {
			t.known = false
			return fmt.Errorf("read chain %s: %w", name, err)
		}
	}
	for name := range heard.sets {
		if err := t.readSet(name); err != nil {
			t.known = false
			return fmt.Errorf("read set %s: %w", name, err)
		}
	}
	return nil
}

// readChain reads one chain with its rules.
func (t *Table) readChain(name string) error {
	var one *found
	err := t.conn.Get(t.request(unix.NFT_MSG_GETCHAIN).String(unix.NFTA_CHAIN_NAME, name), func(body []byte) error {
		_, base, _ := t.chainOf(body)
		one = &found{base: base}
		return nil
	})
	if err == nil {
		err = t.readRules(name, one)
	}
	if errors.Is(err, unix.ENOENT) {
		one, err = nil, nil
	}
	t.sawChain(name, one)
	return err
}

// readSet reads one set. What is in it is read when it is needed.
func (t *Table) readSet(name string) error {
	var there *header
	err := t.conn.Get(t.request(unix.NFT_MSG_GETSET).String(unix.NFTA_SET_NAME, name), func(body []byte) error {
		_, h, _ := t.setOf(body)
		there = &h
		return nil
	})
	if errors.Is(err, unix.ENOENT) {
		err = nil
	}
	t.sawSet(name, there)
	return err
}

// sawChain says what is there of a chain; nil is nothing.
func (t *Table) sawChain(name string, f *found) {
	c := t.chain(name)
	c.have = f
	t.markChain(c)
}

// sawSet says as what a set or map is there; nil is not at all.
func (t *Table) sawSet(name string, h *header) {
	s := t.set(name)
	s.saw(h)
	t.markSet(s)
}

// saw says that the set is there as h, or with nil that it is not.
func (s *set) saw(h *header) {
	s.have, s.unread, s.odd = h, h != nil, false
	if h == nil {
		s.elements.Resync(func(func(Key, Verdict) bool) {})
	}
	if h != nil && s.wanted == nil && h.dataType == verdictData {
		s.kind = AMap
	}
}

// request begins a question about something in the table.
func (t *Table) request(message int) *nlsock.Request {
	return nlsock.NewRequest(kindOf(message), 0, t.header()).String(unix.NFTA_TABLE_NAME, t.name)
}

func (t *Table) readGeneration() error {
	r := nlsock.NewRequest(kindOf(unix.NFT_MSG_GETGEN), 0, t.header())
	err := t.conn.Get(r, func(body []byte) error {
		t.generation = generationOf(body)
		return nil
	})
	if err != nil {
		return fmt.Errorf("generation: %w", err)
	}
	return nil
}

func generationOf(body []byte) uint32 {
	for kind, value := range attrs(body) {
		if kind == unix.NFTA_GEN_ID {
			return number(value)
		}
	}
	return 0
}

func (t *Table) readTable() error {
	t.there, t.dormant = false, false
	err := t.conn.Get(t.request(unix.NFT_MSG_GETTABLE), func(body []byte) error {
		t.there = true
		for kind, value := range attrs(body) {
			if kind == unix.NFTA_TABLE_FLAGS {
				t.dormant = number(value)&tableDormant != 0
			}
		}
		return nil
	})
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// readChains reads the chains. (The kernel tells those of all tables.)
func (t *Table) readChains(into map[string]*found) error {
	return t.conn.Dump(t.request(unix.NFT_MSG_GETCHAIN), func() { clear(into) }, func(_ uint16, body []byte) error {
		name, base, ours := t.chainOf(body)
		if ours {
			into[name] = &found{base: base}
		}
		return nil
	})
}

// chainOf reads what the kernel tells of a chain.
func (t *Table) chainOf(body []byte) (name string, h Hook, ours bool) {
	for kind, value := range attrs(body) {
		switch kind {
		case unix.NFTA_CHAIN_TABLE:
			ours = nlsock.Text(value) == t.name
		case unix.NFTA_CHAIN_NAME:
			name = nlsock.Text(value)
		case unix.NFTA_CHAIN_TYPE:
			h.Type = ChainType(nlsock.Text(value))
		case unix.NFTA_CHAIN_POLICY:
			h.Drop = number(value) == policyDrop
		case unix.NFTA_CHAIN_HOOK:
			for kind, value := range nlsock.Attrs(value) {
				switch kind {
				case unix.NFTA_HOOK_HOOKNUM:
					h.Number = HookNumber(number(value))
				case unix.NFTA_HOOK_PRIORITY:
					h.Priority = int32(number(value))
				}
			}
		}
	}
	return name, h, ours
}

// readRules reads which rules a chain has. Chains are asked one by one: the
// kernel tells rules by pieces of 32 KiB, and for each piece counts again from the
// first one that was asked for.
func (t *Table) readRules(name string, c *found) error {
	var all reading
	r := t.request(unix.NFT_MSG_GETRULE).String(ruleChain, name)
	err := t.conn.Dump(r, func() { all = reading{} }, func(_ uint16, body []byte) error {
		var data []byte
		for kind, value := range attrs(body) {
			if kind == unix.NFTA_RULE_USERDATA {
				data = value
			}
		}
		all.rule(data)
		return nil
	})
	c.hash = all.end()
	return err
}

// reading is what is known of a chain while its rules are read.
type reading struct {
	hash  hash
	next  uint32 // rules that were read
	count uint32 // rules that there are to be
	odd   bool
}

// rule takes in the user data of the next rule of the chain.
func (r *reading) rule(data []byte) {
	h, i, count, ours := readUserData(data)
	if r.next == 0 {
		r.hash, r.count = h, count
	}
	r.odd = r.odd || !ours || h != r.hash || i != r.next || count != r.count
	r.next++
}

// end returns the hash, if all the rules are those that it is of.
func (r *reading) end() hash {
	switch {
	case r.next == 0:
		return noRules
	case r.odd || r.next != r.count:
		return hash{}
	}
	return r.hash
}

func (t *Table) readSets(into map[string]*header) error {
	return t.conn.Dump(t.request(unix.NFT_MSG_GETSET), func() { clear(into) }, func(_ uint16, body []byte) error {
		if name, h, ours := t.setOf(body); ours {
			into[name] = &h
		}
		return nil
	})
}

// setOf reads what the kernel tells of a set or map.
func (t *Table) setOf(body []byte) (name string, h header, ours bool) {
	for kind, value := range attrs(body) {
		switch kind {
		case unix.NFTA_SET_TABLE:
			ours = nlsock.Text(value) == t.name
		case unix.NFTA_SET_NAME:
			name = nlsock.Text(value)
		case unix.NFTA_SET_FLAGS:
			h.flags = number(value)
		case unix.NFTA_SET_KEY_TYPE:
			h.keyType = number(value)
		case unix.NFTA_SET_KEY_LEN:
			h.keyLen = number(value)
		case unix.NFTA_SET_DATA_TYPE:
			h.dataType = number(value)
		}
	}
	return name, h, ours
}

// attrs yields the attributes of a message after struct nfgenmsg.
func attrs(body []byte) func(func(uint16, []byte) bool) {
	return nlsock.Attrs(body[min(4, len(body)):])
}

func number(value []byte) uint32 {
	if len(value) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(value)
}
