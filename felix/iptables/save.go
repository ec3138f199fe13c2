package iptables

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/koratnet/korat/felix/kernel/xtables"
)

// content is what of ours a table in the kernel holds.
type content struct {
	chains map[string][]string // hashes of the rules of own chains, "" for one that is not ours
	hooks  map[string]hooked   // own rules in built-in chains
	marks  uint32              // that the rules use, 0 if they do not tell
}

// hooked are our rules in one built-in chain.
type hooked struct {
	first  string   // hash of the chain's first rule, "" if that is not ours
	hashes []string // of ours
}

func contentOf(chains []xtables.Chain) content {
	c := content{chains: map[string][]string{}, hooks: map[string]hooked{}}
	for _, x := range chains {
		hashes := make([]string, len(x.Comments))
		for i, text := range x.Comments {
			hashes[i] = commentHash(text)
		}
		switch {
		case !x.Builtin:
			c.chains[x.Name] = hashes
			if x.Name == allowChain && len(x.Comments) > 0 {
				c.marks = notedMarks(x.Comments[0])
			}
		default:
			h := hooked{}
			for i, hash := range hashes {
				if hash == "" {
					continue
				}
				if i == 0 {
					h.first = hash
				}
				h.hashes = append(h.hashes, hash)
			}
			if len(h.hashes) > 0 {
				c.hooks[x.Name] = h
			}
		}
	}
	return c
}

// marksNote tells a later life of the agent which marks the rules use.
func marksNote(m marks) string { return fmt.Sprintf("marks 0x%x", m.all()) }

func notedMarks(comment string) uint32 {
	_, text, _ := strings.Cut(comment, "marks 0x")
	bits, err := strconv.ParseUint(text, 16, 32)
	if err != nil {
		return 0
	}
	return uint32(bits)
}

// reading is what the kernel held at some moment. Of legacy nobody can say
// whether it has changed since.
type reading struct {
	tables     map[string]content
	generation uint32 // of nf_tables, before the reading
}

// read reads what of ours the tables hold.
func (t tool) read(names ...string) (reading, error) {
	r := reading{tables: map[string]content{}}
	own := ownName.MatchString
	if t.flavour == Legacy {
		for _, name := range names {
			chains, err := xtables.Legacy(t.family, name, own)
			if err != nil {
				return r, err
			}
			r.tables[name] = contentOf(chains)
		}
		return r, nil
	}
	n, err := xtables.OpenNFT(t.family)
	if err != nil {
		return r, err
	}
	defer n.Close()
	if r.generation, err = n.Generation(); err != nil {
		return r, err
	}
	for _, name := range names {
		chains, err := n.Table(name, own)
		if err != nil {
			return r, err
		}
		r.tables[name] = contentOf(chains)
	}
	return r, nil
}

// generation returns that of nf_tables; legacy has none.
func (t tool) generation() (uint32, error) {
	if t.flavour == Legacy {
		return 0, nil
	}
	n, err := xtables.OpenNFT(t.family)
	if err != nil {
		return 0, err
	}
	defer n.Close()
	return n.Generation()
}
