package controller

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	koratv1 "github.com/koratnet/korat/api/v1"
)

func pool(name, cidr string, age time.Duration, change ...func(*koratv1.IPPool)) koratv1.IPPool {
	p := koratv1.IPPool{
		ObjectMeta: metav1.ObjectMeta{Name: name, Generation: 3, CreationTimestamp: metav1.NewTime(time.Unix(1e6, 0).Add(-age))},
		Spec:       koratv1.IPPoolSpec{CIDR: koratv1.CIDR(cidr)},
	}
	for _, f := range change {
		f(&p)
	}
	return p
}

func block(cidr, pool string, allocated int32) koratv1.Block {
	b := koratv1.Block{Spec: koratv1.BlockSpec{CIDR: koratv1.CIDR(cidr), Pool: pool}, Status: koratv1.BlockStatus{Allocated: allocated}}
	b.Name = strings.NewReplacer(".", "-", "/", "-").Replace(cidr)
	return b
}

func disabled(p *koratv1.IPPool) { p.Spec.Disabled = true }

func sized(n int32) func(*koratv1.IPPool) { return func(p *koratv1.IPPool) { p.Spec.BlockSize = n } }

func forNodes(text string) func(*koratv1.IPPool) {
	return func(p *koratv1.IPPool) { p.Spec.NodeSelector = text }
}

// brief is a condition in one line.
func brief(conditions []metav1.Condition, kind string) string {
	c := meta.FindStatusCondition(conditions, kind)
	if c == nil {
		return "absent"
	}
	return strings.TrimSuffix(string(c.Status)+" "+c.Reason+": "+c.Message, ": ")
}

func TestReadinessOfAPool(t *testing.T) {
	const day = 24 * time.Hour
	for name, c := range map[string]struct {
		pool   koratv1.IPPool
		others []koratv1.IPPool
		blocks []koratv1.Block
		want   string
	}{
		"alone it serves": {pool: pool("a", "10.244.0.0/16", 0), want: "True Serving"},
		"beside others it serves": {
			pool: pool("a", "10.244.0.0/16", 0), others: []koratv1.IPPool{pool("b", "10.245.0.0/16", day), pool("c", "fd00::/48", day)},
			want: "True Serving",
		},
		"the younger of two that overlap does not": {
			pool: pool("a", "10.244.1.0/24", 0), others: []koratv1.IPPool{pool("b", "10.244.0.0/16", day)},
			want: `False Overlap: spec.cidr: "10.244.1.0/24" overlaps 10.244.0.0/16 of IPPool b, which goes first: expected a range of its own`,
		},
		"the older of two that overlap does": {
			pool: pool("a", "10.244.0.0/16", day), others: []koratv1.IPPool{pool("b", "10.244.1.0/24", 0)}, want: "True Serving",
		},
		"of equal age the smaller name goes first": {
			pool: pool("a", "10.244.0.0/16", day), others: []koratv1.IPPool{pool("b", "10.244.0.0/16", day)}, want: "True Serving",
		},
		"of equal age the greater name gives way": {
			pool: pool("c", "10.244.0.0/16", day), others: []koratv1.IPPool{pool("b", "10.244.0.0/16", day), pool("a", "10.244.0.0/24", 2*day)},
			want: `False Overlap: spec.cidr: "10.244.0.0/16" overlaps 10.244.0.0/24 of IPPool a, which goes first: expected a range of its own`,
		},
		"a disabled pool keeps its range": {
			pool: pool("a", "10.244.0.0/16", 0), others: []koratv1.IPPool{pool("b", "10.244.0.0/16", day, disabled)},
			want: `False Overlap: spec.cidr: "10.244.0.0/16" overlaps 10.244.0.0/16 of IPPool b, which goes first: expected a range of its own`,
		},
		"it is told to be disabled": {
			pool: pool("a", "10.244.0.0/16", 0, disabled),
			want: "False Disabled: spec.disabled is true: no block can be claimed, pods keep their addresses",
		},
		"its selector is broken": {
			pool: pool("a", "10.244.0.0/16", 0, forNodes("rack = 'a'")),
			want: `False InvalidSelector: spec.nodeSelector: "rack = 'a'": column 6: expected`,
		},
		"every block is owned": {
			pool: pool("a", "10.244.0.0/27", 0, sized(28)), blocks: []koratv1.Block{block("10.244.0.0/28", "a", 1), block("10.244.0.16/28", "a", 0)},
			want: "False Exhausted: all 2 blocks are owned by nodes: add an IPPool",
		},
		"a block that is no claim does not count": {
			pool: pool("a", "10.244.0.0/27", 0, sized(28)), blocks: []koratv1.Block{block("10.244.0.0/28", "a", 1), block("10.245.0.16/28", "a", 0)},
			want: "True Serving",
		},
	} {
		t.Run(name, func(t *testing.T) {
			all := append([]koratv1.IPPool{c.pool}, c.others...)
			got := brief(poolStatus(&c.pool, all, c.blocks, nil).Conditions, koratv1.ConditionReady)
			if !strings.HasPrefix(got, c.want) || c.want == "True Serving" && got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestCountsOfAPool(t *testing.T) {
	for _, c := range []struct {
		pool     koratv1.IPPool
		blocks   []koratv1.Block
		blocksN  int32
		size     int32
		capacity int64
		used     string
	}{
		{pool("a", "10.244.0.0/16", 0), []koratv1.Block{block("10.244.0.0/26", "a", 5), block("10.244.0.64/26", "a", 7)}, 2, 26, 65536, "12/65536"},
		{pool("a", "10.244.0.1/32", 0, sized(32)), nil, 0, 32, 1, "0/1"},
		{pool("a", "fd00::/66", 0), nil, 0, 122, 1 << 62, "0/4611686018427387904"},
		{pool("a", "fd00::/65", 0), nil, 0, 122, 1<<63 - 1, "0/2^63"},
		{pool("a", "fd00::/48", 0), nil, 0, 122, 1<<63 - 1, "0/2^80"},
	} {
		s := poolStatus(&c.pool, []koratv1.IPPool{c.pool}, c.blocks, nil)
		got := []any{s.Blocks, s.BlockSize, s.Capacity, s.Used}
		if diff := cmp.Diff([]any{c.blocksN, c.size, c.capacity, c.used}, got); diff != "" {
			t.Errorf("%s: %s", c.pool.Spec.CIDR, diff)
		}
	}
}

func TestTheSameFactsGiveTheSameStatus(t *testing.T) {
	p := pool("a", "10.244.0.0/16", 0, disabled)
	p.Status = poolStatus(&p, []koratv1.IPPool{p}, nil, nil)
	was := metav1.NewTime(time.Unix(5, 0))
	p.Status.Conditions[0].LastTransitionTime = was
	if diff := cmp.Diff(p.Status, poolStatus(&p, []koratv1.IPPool{p}, nil, nil)); diff != "" {
		t.Error(diff)
	}
	before := p.DeepCopy()
	p.Spec.Disabled = false
	poolStatus(&p, []koratv1.IPPool{p}, nil, nil)
	if diff := cmp.Diff(before.Status, p.Status); diff != "" {
		t.Errorf("the object from the cache was changed: %s", diff)
	}
}

func TestAcceptanceOfABlock(t *testing.T) {
	whole := pool("pods", "10.244.0.0/16", 0)
	renamed := block("10.244.0.64/26", "pods", 0)
	renamed.Name = "mine"
	for name, c := range map[string]struct {
		block koratv1.Block
		pool  *koratv1.IPPool
		want  string
	}{
		"fits":                 {block("10.244.0.64/26", "pods", 0), &whole, "True Accepted"},
		"another name":         {renamed, &whole, `False NameMismatch: metadata.name: "mine": expected "10-244-0-64-26", the name of 10.244.0.64/26: the block is no claim and is ignored`},
		"no pool":              {block("10.244.0.64/26", "pods", 0), nil, `False OutsidePool: spec.pool: "pods": expected the name of an IPPool, and there is none of this name`},
		"outside":              {block("10.245.0.64/26", "pods", 0), &whole, `False OutsidePool: spec.cidr: "10.245.0.64/26": expected a range inside 10.244.0.0/16 of IPPool pods`},
		"larger than the pool": {block("10.240.0.0/12", "pods", 0), &whole, `False OutsidePool: spec.cidr: "10.240.0.0/12": expected a range inside 10.244.0.0/16 of IPPool pods`},
		"wider than a block":   {block("10.244.0.0/25", "pods", 0), &whole, `False OutsidePool: spec.cidr: "10.244.0.0/25": expected a prefix length of 26, the block size of IPPool pods, or more, if it is a part of a block`},
		"part of a block":      {block("10.244.0.77/32", "pods", 0), &whole, "True Accepted"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := brief(blockConditions(&c.block, c.pool), koratv1.ConditionAccepted); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}
