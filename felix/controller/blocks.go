package controller

import (
	"fmt"
	"net/netip"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	koratv1 "github.com/koratnet/korat/api/v1"
)

// blockConditions says whether b fits its pool, which is nil when there is none.
// The rest of a block's status is its owner's to write.
func blockConditions(b *koratv1.Block, pool *koratv1.IPPool) []metav1.Condition {
	return accepted(b.Status.Conditions, blockProblem(b, pool), b.Generation)
}

// blockProblem says what is wrong with b, the zero finding if nothing is.
func blockProblem(b *koratv1.Block, pool *koratv1.IPPool) finding {
	cidr, err := netip.ParsePrefix(string(b.Spec.CIDR))
	if err != nil {
		return finding{koratv1.ReasonOutsidePool, err.Error()}
	}
	if want := koratv1.BlockName(cidr); b.Name != want {
		return finding{koratv1.ReasonNameMismatch, fmt.Sprintf(
			"metadata.name: %q: expected %q, the name of %s: the block is no claim and is ignored", b.Name, want, cidr)}
	}
	if pool == nil {
		return finding{koratv1.ReasonOutsidePool, fmt.Sprintf("spec.pool: %q: expected the name of an IPPool, and there is none of this name", b.Spec.Pool)}
	}
	whole, size := poolRange(pool)
	if !whole.Overlaps(cidr) || cidr.Bits() < whole.Bits() {
		return finding{koratv1.ReasonOutsidePool, fmt.Sprintf("spec.cidr: %q: expected a range inside %s of IPPool %s", b.Spec.CIDR, whole, pool.Name)}
	}
	if cidr.Bits() < size {
		return finding{koratv1.ReasonOutsidePool, fmt.Sprintf(
			"spec.cidr: %q: expected a prefix length of %d, the block size of IPPool %s, or more, if it is a part of a block", b.Spec.CIDR, size, pool.Name)}
	}
	return finding{}
}

// isPart reports whether b is a part of a block that its owner gave away: it is
// smaller than the blocks of its pool.
func isPart(b *koratv1.Block, size int) bool {
	cidr, err := netip.ParsePrefix(string(b.Spec.CIDR))
	return err == nil && cidr.Bits() > size
}

// partsOf returns the blocks inside of b.
func partsOf(b *koratv1.Block, all []koratv1.Block) (parts []*koratv1.Block) {
	whole, err := netip.ParsePrefix(string(b.Spec.CIDR))
	if err != nil {
		return nil
	}
	for i := range all {
		p, err := netip.ParsePrefix(string(all[i].Spec.CIDR))
		if err == nil && p.Bits() > whole.Bits() && whole.Contains(p.Addr()) {
			parts = append(parts, &all[i])
		}
	}
	return parts
}

// configurationConditions says whether the agents use c. The schema lets pass only
// one that is named "default".
func configurationConditions(c *koratv1.BGPConfiguration) []metav1.Condition {
	return accepted(c.Status.Conditions, configurationProblem(c), c.Generation)
}
