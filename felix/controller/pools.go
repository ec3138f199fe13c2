package controller

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"strconv"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	koratv1 "github.com/koratnet/korat/api/v1"
	"github.com/koratnet/korat/policy/selector"
)

// poolStatus says what p's status is among all pools, with the blocks cut from
// it. Conditions keep the time of their last change.
func poolStatus(p *koratv1.IPPool, all []koratv1.IPPool, blocks []koratv1.Block) koratv1.IPPoolStatus {
	s := koratv1.IPPoolStatus{Conditions: p.Status.DeepCopy().Conditions}
	cidr, size := poolRange(p)
	for i := range blocks {
		if b := &blocks[i]; blockProblem(b, p).reason == "" {
			s.Blocks++
			s.Allocated += int64(b.Status.Allocated)
		}
	}
	s.BlockSize = int32(size)
	s.Capacity = power(cidr.Addr().BitLen() - cidr.Bits())
	s.Used = usedText(s.Allocated, cidr.Addr().BitLen()-cidr.Bits())

	ready := finding{reason: koratv1.ReasonServing}
	ok := false
	switch older := overlapping(p, all); {
	case p.Spec.Disabled:
		ready = finding{koratv1.ReasonDisabled, "spec.disabled is true: no block can be claimed, pods keep their addresses"}
	case selectorError(p.Spec.NodeSelector) != nil:
		ready = selectorProblem(p.Spec.NodeSelector)
	case older != nil:
		ready = finding{koratv1.ReasonOverlap, fmt.Sprintf(
			"spec.cidr: %q overlaps %s of IPPool %s, which goes first: expected a range of its own", p.Spec.CIDR, older.Spec.CIDR, older.Name)}
	case int64(s.Blocks) >= power(size-cidr.Bits()):
		ready = finding{koratv1.ReasonExhausted, fmt.Sprintf("all %d blocks are owned by nodes: add an IPPool", s.Blocks)}
	default:
		ok = true
	}
	meta.SetStatusCondition(&s.Conditions, ready.condition(koratv1.ConditionReady, ok, p.Generation))
	return s
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

func selectorProblem(text string) finding {
	return finding{koratv1.ReasonInvalidSelector, fmt.Sprintf("spec.nodeSelector: %q: %v", text, selectorError(text))}
}
