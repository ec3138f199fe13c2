package eval

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAnAskerAnswersLikeItsCluster(t *testing.T) {
	for seed := range uint64(200) {
		r := &random{rand.New(rand.NewPCG(seed, 0))}
		o := r.cluster()
		c := fromOpinion(o)
		a := c.Asker()
		for range 10 {
			p, _ := r.packet(o)
			if diff := cmp.Diff(c.Verdict(p), a.Verdict(p)); diff != "" {
				t.Fatalf("cluster %d, %s (-cluster +asker):\n%s", seed, p, diff)
			}
		}
	}
}
