package nft

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/nftables/expr"

	"github.com/koratnet/korat/felix/kernel/nftables"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// textOf returns a text of policies with so many rules each, and one at the end.
func textOf(policies []int, each int) text {
	var t text
	for _, i := range policies {
		id := ir.ProgramID{Policy: policy.Key{Namespace: "shop", Name: fmt.Sprint("p", i)}}
		t.open(id, slices.Repeat([]nftables.Rule{commented(rule(back), id.Policy.String())}, each))
	}
	t.add(drop)
	return t
}

// read follows the pages from the first and returns what the rules say.
func read(t *testing.T, pages []nftables.Chain) []string {
	t.Helper()
	var all []string
	for i, p := range pages {
		last := p.Rules[len(p.Rules)-1].Exprs[0].(*expr.Verdict)
		if i == len(pages)-1 {
			if last.Kind != expr.VerdictDrop {
				t.Errorf("the last page ends with %+v", last)
			}
		} else if last.Kind != expr.VerdictGoto || last.Chain != pages[i+1].Name {
			t.Errorf("page %s ends with %+v", p.Name, last)
		}
		for _, r := range p.Rules[:len(p.Rules)-1] {
			all = append(all, r.Comment)
		}
	}
	return all
}

func numbers(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

func TestPagesHoldTheWholeText(t *testing.T) {
	for _, n := range []int{0, 1, 15, 16, 50, 100, 1000} {
		for _, each := range []int{0, 1, 3, 16} {
			source := textOf(numbers(n), each)
			pages := source.pages("to/x")
			var want []string
			for _, r := range source.rules[:len(source.rules)-1] {
				want = append(want, r.Comment)
			}
			if got := read(t, pages); !slices.Equal(got, want) {
				t.Errorf("%d policies of %d rules: %d rules read, want %d", n, each, len(got), len(want))
			}
			if len(pages) > mostPages+1 || len(source.rules) < 2*leastPage && len(pages) > 1 {
				t.Errorf("%d policies of %d rules: %d pages", n, each, len(pages))
			}
			names := map[string]bool{}
			for _, p := range pages {
				if names[p.Name] {
					t.Errorf("two pages are named %s", p.Name)
				}
				names[p.Name] = true
			}
		}
	}
}

func TestAPolicyMoreChangesFewPages(t *testing.T) {
	before := textOf(numbers(50), 1).pages("to/x")
	was := map[string]string{}
	for _, p := range before {
		was[p.Name] = fmt.Sprint(comments(p))
	}
	all := 0
	for at := range 50 {
		changed := 0
		for _, p := range textOf(slices.Insert(numbers(50), at, 99), 1).pages("to/x") {
			if was[p.Name] != fmt.Sprint(comments(p)) {
				changed++
			}
		}
		all += changed
	}
	if len(before) < 4 || all > 50*2 {
		t.Errorf("%d pages, of which a policy changes %.1f", len(before), float64(all)/50)
	}
}

func comments(c nftables.Chain) []string {
	var all []string
	for _, r := range c.Rules {
		all = append(all, r.Comment)
	}
	return all
}
