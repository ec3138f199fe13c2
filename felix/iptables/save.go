package iptables

import (
	"fmt"
	"slices"
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
	head   []string // hashes of those at the head, before the first that is not ours
	hashes []string // of all
}

func (h hooked) equal(o hooked) bool {
	return slices.Equal(h.head, o.head) && slices.Equal(h.hashes, o.hashes)
}

func contentOf(chains []xtables.Chain) content {
	c := content{chains: map[string][]string{}, hooks: map[string]hooked{}}
	for _, x := range chains {
		hashes := hashesOf(x.Rules)
		switch {
		case !x.Builtin:
			c.chains[x.Name] = hashes
			if x.Name == passChain && len(x.Rules) > 0 {
				c.marks = notedMarks(x.Rules[0].Comment)
			}
		default:
			h := hooked{head: leading(hashes)}
			for _, hash := range hashes {
				if hash != "" {
					h.hashes = append(h.hashes, hash)
				}
			}
			if len(h.hashes) > 0 {
				c.hooks[x.Name] = h
			}
		}
	}
	return c
}

func hashesOf(rules []xtables.Rule) []string {
	hashes := make([]string, len(rules))
	for i, r := range rules {
		hashes[i] = sealText(r.Seal)
	}
	return hashes
}

// leading returns the hashes before the first rule that is not ours.
func leading(hashes []string) []string {
	if i := slices.Index(hashes, ""); i >= 0 {
		return hashes[:i]
	}
	return hashes
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
