package addresses

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"

	koratv1 "github.com/koratnet/korat/api/v1"
)

// barWidth is how many characters a bar has.
const barWidth = 40

// Show returns tables of pools and of blocks, for people.
func (b *Books) Show() string {
	var s strings.Builder
	w := tabwriter.NewWriter(&s, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "POOL\tCIDR\tBLOCKS\tUSED\tRESTING\tRESERVED\tREADY\tWILL LAST")
	for i := range b.Pools {
		p := &b.Pools[i]
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%d\t%d\t%s\t%s\n", p.Name, p.Spec.CIDR, p.Status.Blocks, p.Status.Used,
			p.Status.Quarantined, p.Status.Reserved, condition(p, koratv1.ConditionReady), condition(p, koratv1.ConditionSufficient))
	}
	w.Flush()
	fmt.Fprintln(&s)
	w = tabwriter.NewWriter(&s, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "BLOCK\tNODE\tPOOL\tUSED\tKEPT\tRESTING\tRESERVED\tGIVEN\tFREE\tPART OF")
	blocks := b.blocks()
	for _, x := range blocks {
		st := x.Status
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%s\n", x.cidr, x.Spec.Node, x.Spec.Pool,
			st.Allocated, len(st.Kept), int(st.Quarantined)-len(st.Kept), st.Reserved, st.Given, st.Free, around(blocks, x))
	}
	w.Flush()
	return s.String()
}

func condition(p *koratv1.IPPool, kind string) string {
	for _, c := range p.Status.Conditions {
		if c.Type == kind {
			return c.Reason
		}
	}
	return "?"
}

// around names the narrowest block that x lies in.
func around(blocks []block, x block) string {
	best := "-"
	bits := -1
	for _, o := range blocks {
		if o.cidr.Bits() < x.cidr.Bits() && o.cidr.Contains(x.cidr.Addr()) && o.cidr.Bits() > bits {
			best, bits = o.cidr.String(), o.cidr.Bits()
		}
	}
	return best
}

// Bars returns a picture of how full pools and blocks are: a bar each, of # for
// addresses of pods, + for those that rest, = for those that others were given,
// r for reserved ones and . for free ones.
func (b *Books) Bars() string {
	var s strings.Builder
	blocks := b.blocks()
	for i := range b.Pools {
		p := &b.Pools[i]
		free := max(p.Status.Capacity-p.Status.Allocated-p.Status.Quarantined, 0)
		fmt.Fprintf(&s, "%-24s %-20s [%s] %s\n", p.Name, p.Spec.CIDR,
			bar(p.Status.Allocated, p.Status.Quarantined, 0, p.Status.Reserved, free), p.Status.Used)
		for _, x := range blocks {
			if x.Spec.Pool == p.Name {
				st := x.Status
				fmt.Fprintf(&s, "  %-22s %-20s [%s] %d/%d\n", x.Spec.Node, x.cidr,
					bar(int64(st.Allocated), int64(st.Quarantined), int64(st.Given), int64(st.Reserved), int64(st.Free)),
					st.Allocated, 1<<(x.cidr.Addr().BitLen()-x.cidr.Bits()))
			}
		}
	}
	s.WriteString("# pods  + resting  = given to other nodes  r reserved  . free\n")
	return s.String()
}

// bar draws parts of a whole. What is there at all gets a character, if there are
// enough.
func bar(used, resting, given, reserved, free int64) string {
	signs, parts := "#+=r.", []int64{used, resting, given, reserved, free}
	var total float64
	for _, n := range parts {
		total += float64(n)
	}
	if total == 0 {
		return strings.Repeat(" ", barWidth)
	}
	widths := make([]int, len(parts))
	sum := 0
	for i, n := range parts {
		widths[i] = int(float64(n) / total * barWidth)
		if n > 0 {
			widths[i] = max(widths[i], 1)
		}
		sum += widths[i]
	}
	widest := 0
	for i := range widths {
		if widths[i] > widths[widest] {
			widest = i
		}
	}
	widths[widest] += barWidth - sum
	var s strings.Builder
	for i, n := range widths {
		s.WriteString(strings.Repeat(signs[i:i+1], n))
	}
	return s.String()
}

// Holder is what is known of an address.
type Holder struct {
	Address string `json:"address"`
	// State is Held, Kept, Reserved, Free, "Free or resting" or, for one that belongs to no
	// block, Unclaimed or Foreign: in no pool.
	State string   `json:"state"`
	Pod   string   `json:"pod,omitempty"` // namespace/name that holds it, or for whose return it is kept
	Pods  []string `json:"pods"`          // that say of themselves that they have it
	Node  string   `json:"node,omitempty"`
	Block string   `json:"block,omitempty"`
	Pool  string   `json:"pool,omitempty"`
}

// WhoHas tells what is known of an address.
func (b *Books) WhoHas(a netip.Addr) Holder {
	h := Holder{Address: a.String(), State: "Foreign", Pods: []string{}}
	for _, p := range b.pods() {
		if slices.Contains(addrsOf(p), a) {
			h.Pods = append(h.Pods, p.Namespace+"/"+p.Name)
		}
	}
	for i := range b.Pools {
		if cidr, err := netip.ParsePrefix(string(b.Pools[i].Spec.CIDR)); err == nil && cidr.Contains(a) {
			h.Pool, h.State = b.Pools[i].Name, "Unclaimed"
		}
	}
	x, found := narrowest(b.blocks(), a)
	if !found {
		return h
	}
	h.Block, h.Node, h.Pool = x.cidr.String(), x.Spec.Node, x.Spec.Pool
	held, kept := entries(x.Status.Addresses)[a], entries(x.Status.Kept)[a]
	h.Pod = cmp.Or(held, kept)
	switch {
	case held != "":
		h.State = "Held"
	case kept != "":
		h.State = "Kept"
	case b.reserved(a):
		h.State = "Reserved"
	case x.Status.Quarantined > int32(len(x.Status.Kept)):
		h.State = "Free or resting"
	default:
		h.State = "Free"
	}
	return h
}

func (b *Books) reserved(a netip.Addr) bool {
	for i := range b.Reservations {
		for _, c := range b.Reservations[i].Spec.CIDRs {
			if p, err := netip.ParsePrefix(string(c)); err == nil && p.Contains(a) {
				return true
			}
		}
	}
	return false
}

// Text returns h for people.
func (h Holder) Text() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s: %s", h.Address, strings.ToLower(h.State[:1])+h.State[1:])
	if h.State == "Foreign" {
		s.WriteString(", in no pool")
	}
	if h.Pod != "" {
		fmt.Fprintf(&s, ", pod %s", h.Pod)
	}
	if h.Node != "" {
		fmt.Fprintf(&s, ", node %s, block %s", h.Node, h.Block)
	}
	if h.Pool != "" {
		fmt.Fprintf(&s, ", pool %s", h.Pool)
	}
	for _, p := range h.Pods {
		if p != h.Pod {
			fmt.Fprintf(&s, "\n  pod %s says that it has it", p)
		}
	}
	s.WriteByte('\n')
	return s.String()
}
