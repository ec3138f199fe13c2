package controller

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/policy/selector"
)

// poolStatus says what p's status is among all pools, with the blocks cut from
// it and the reservations there are. Conditions keep the time of their last change.
func poolStatus(p *koratv1.IPPool, all []koratv1.IPPool, blocks []koratv1.Block, reserved []koratv1.IPReservation) koratv1.IPPoolStatus {
	s := koratv1.IPPoolStatus{Conditions: p.Status.DeepCopy().Conditions}
	cidr, size := poolRange(p)
	for i := range blocks {
		b := &blocks[i]
		if blockProblem(b, p).reason != "" {
			continue
		}
		if !isPart(b, size) {
			s.Blocks++
		}
		s.Allocated += int64(b.Status.Allocated)
		s.Quarantined += int64(b.Status.Quarantined)
	}
	s.BlockSize = int32(size)
	s.Reserved = reservedIn(cidr, reserved)
	s.Capacity = power(cidr.Addr().BitLen() - cidr.Bits())
	if s.Capacity < math.MaxInt64 && s.Reserved > 0 {
		s.Capacity -= s.Reserved
	}
	setUsed(&s, cidr)
	ready, ok := poolReadiness(p, all, blocks, s)
	meta.SetStatusCondition(&s.Conditions, ready.condition(koratv1.ConditionReady, ok, p.Generation))
	return s
}

// setUsed says in words what s says in numbers.
func setUsed(s *koratv1.IPPoolStatus, cidr netip.Prefix) {
	s.Used = usedText(s.Allocated, cidr.Addr().BitLen()-cidr.Bits())
	if s.Capacity < math.MaxInt64 && s.Reserved > 0 {
		s.Used = fmt.Sprintf("%d/%d", s.Allocated, s.Capacity)
	}
}

// countServices adds the addresses that services have of p to its status.
func countServices(p *koratv1.IPPool, s *koratv1.IPPoolStatus, services []corev1.Service) {
	cidr, _ := poolRange(p)
	held := 0
	for i := range services {
		for _, a := range assigned(&services[i]) {
			if cidr.Contains(a) {
				held++
			}
		}
	}
	if held == 0 {
		return
	}
	s.Allocated += int64(held)
	setUsed(s, cidr)
	if p.DeletionTimestamp != nil {
		f := finding{koratv1.ReasonDeleting, fmt.Sprintf("no address is given out any more; the pool is gone when the services are that hold %d addresses", held)}
		meta.SetStatusCondition(&s.Conditions, f.condition(koratv1.ConditionReady, false, p.Generation))
	}
}

func poolReadiness(p *koratv1.IPPool, all []koratv1.IPPool, blocks []koratv1.Block, s koratv1.IPPoolStatus) (finding, bool) {
	cidr, size := poolRange(p)
	switch older := overlapping(p, all); {
	case p.DeletionTimestamp != nil:
		return deletion(slices.DeleteFunc(slices.Clone(blocks), func(b koratv1.Block) bool { return blockProblem(&b, p).reason != "" })), false
	case p.Spec.Disabled:
		return finding{koratv1.ReasonDisabled, "spec.disabled is true: no block can be claimed, pods keep their addresses"}, false
	case selectorError(p.Spec.NodeSelector) != nil:
		return selectorProblem("spec.nodeSelector", p.Spec.NodeSelector), false
	case selectorError(p.Spec.NamespaceSelector) != nil:
		return selectorProblem("spec.namespaceSelector", p.Spec.NamespaceSelector), false
	case older != nil:
		return finding{koratv1.ReasonOverlap, fmt.Sprintf(
			"spec.cidr: %q overlaps %s of IPPool %s, which goes first: expected a range of its own", p.Spec.CIDR, older.Spec.CIDR, older.Name)}, false
	case int64(s.Blocks) >= power(size-cidr.Bits()):
		return finding{koratv1.ReasonExhausted, fmt.Sprintf("all %d blocks are owned by nodes: add an IPPool", s.Blocks)}, false
	}
	return finding{reason: koratv1.ReasonServing}, true
}

// deletion says what holds a pool that is being deleted.
func deletion(blocks []koratv1.Block) finding {
	const named = 5
	var held int32
	var texts []string
	for i := range blocks {
		b := &blocks[i]
		held += b.Status.Allocated
		if len(texts) < named {
			texts = append(texts, fmt.Sprintf("%s of node %s (%d)", b.Spec.CIDR, b.Spec.Node, b.Status.Allocated))
		}
	}
	if len(blocks) == 0 {
		return finding{koratv1.ReasonDeleting, "no block is left: the pool is gone in some seconds"}
	}
	more := ""
	if len(blocks) > named {
		more = fmt.Sprintf(" and %d more", len(blocks)-named)
	}
	return finding{koratv1.ReasonDeleting, fmt.Sprintf(
		"no address is given out any more; the pool is gone when the pods are that hold %d addresses, in the blocks %s%s", held, strings.Join(texts, ", "), more)}
}

// reservedIn returns how many addresses of cidr the reservations cover, each
// counted once: of two ranges that overlap one contains the other.
func reservedIn(cidr netip.Prefix, all []koratv1.IPReservation) int64 {
	var ranges []netip.Prefix
	for i := range all {
		for _, c := range all[i].Spec.CIDRs {
			p, err := netip.ParsePrefix(string(c))
			if err != nil || !p.Overlaps(cidr) {
				continue
			}
			if p.Bits() < cidr.Bits() {
				p = cidr
			}
			ranges = append(ranges, p)
		}
	}
	slices.SortFunc(ranges, func(a, b netip.Prefix) int { return cmp.Compare(a.Bits(), b.Bits()) })
	var n int64
	for i, p := range ranges {
		if slices.ContainsFunc(ranges[:i], p.Overlaps) {
			continue
		}
		if n += power(p.Addr().BitLen() - p.Bits()); n < 0 {
			return math.MaxInt64
		}
	}
	return n
}

// poolRange returns the range of p and the prefix length of its blocks. The
// schema lets no other text pass, so an error cannot come from the API server.
func poolRange(p *koratv1.IPPool) (cidr netip.Prefix, blockSize int) {
	cidr, err := netip.ParsePrefix(string(p.Spec.CIDR))
	if err != nil {
		return netip.Prefix{}, 0
	}
	if p.Spec.BlockSize != 0 {
		return cidr, int(p.Spec.BlockSize)
	}
	return cidr, koratv1.DefaultBlockSize(cidr)
}

// overlapping returns the first of all pools that overlap p and go before it, or
// nil. A disabled pool counts too: its pods keep their addresses.
func overlapping(p *koratv1.IPPool, all []koratv1.IPPool) *koratv1.IPPool {
	cidr, _ := poolRange(p)
	var first *koratv1.IPPool
	for i := range all {
		o := &all[i]
		if other, _ := poolRange(o); !other.Overlaps(cidr) || !goesFirst(o, p) {
			continue
		}
		if first == nil || goesFirst(o, first) {
			first = o
		}
	}
	return first
}

// goesFirst says whether a is older than b, or of equal age and smaller by name.
func goesFirst(a, b *koratv1.IPPool) bool {
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name)) < 0
}

// power is 2 to the n, or the greatest number there is.
func power(n int) int64 {
	if n >= 63 {
		return math.MaxInt64
	}
	return int64(1) << n
}

func usedText(allocated int64, bits int) string {
	if bits >= 63 {
		return fmt.Sprintf("%d/2^%d", allocated, bits)
	}
	return strconv.FormatInt(allocated, 10) + "/" + strconv.FormatInt(power(bits), 10)
}

// A finding is what a loop has to say about an object, as reason and message of
// a condition.
type finding struct{ reason, message string }

func (f finding) condition(kind string, ok bool, generation int64) metav1.Condition {
	status := metav1.ConditionFalse
	if ok {
		status = metav1.ConditionTrue
	}
	return metav1.Condition{Type: kind, Status: status, Reason: f.reason, Message: koratv1.Shorten(f.message, koratv1.MaxMessage), ObservedGeneration: generation}
}

func selectorError(text string) error {
	_, err := selector.Parse(text)
	return err
}

func selectorProblem(field, text string) finding {
	return finding{koratv1.ReasonInvalidSelector, fmt.Sprintf("%s: %q: %v", field, text, selectorError(text))}
}
