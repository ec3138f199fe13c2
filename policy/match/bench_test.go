package match

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/selector"
)

const (
	benchNamespaces = 1000
	benchPolicies   = 10_000
)

func benchNamespace(i int) string { return fmt.Sprintf("ns-%d", i%benchNamespaces) }

// benchLabels are those of a usual pod: a name of its own, a hash per template,
// and some that many share.
func benchLabels(i int) selector.Labels {
	return selector.MakeLabels(map[string]string{
		"app":               fmt.Sprintf("app-%d", i/benchNamespaces%10),
		"tier":              fmt.Sprintf("tier-%d", i%3),
		"version":           fmt.Sprintf("v%d", i%7),
		"pod-template-hash": fmt.Sprintf("h%d", i%5000),
		"pod-name":          fmt.Sprintf("pod-%d", i),
	})
}

func benchScope(i int) policy.Scope {
	app := selector.Equals("app", fmt.Sprintf("app-%d", i/benchNamespaces%10))
	if i%4 == 0 {
		return policy.Scope{Namespaces: selector.Equals("team", fmt.Sprintf("t%d", i%100)), Pods: app}
	}
	return policy.Scope{Namespace: benchNamespace(i), Pods: app}
}

func benchThings(n int) *Things[int] {
	x := NewThings[int]()
	for i := range benchNamespaces {
		x.SetNamespace(benchNamespace(i), selector.MakeLabels(map[string]string{"team": fmt.Sprintf("t%d", i%100)}))
	}
	for i := range n {
		x.Set(i, benchNamespace(i), benchLabels(i))
	}
	return x
}

func benchScopes() *Scopes[int] {
	x := NewScopes[int]()
	for i := range benchPolicies {
		x.Set(i, benchScope(i))
	}
	return x
}

var benchSizes = []int{25_000, 250_000}

func BenchmarkLoadThings(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var before, after runtime.MemStats
			labels := make([]selector.Labels, n)
			for i := range labels {
				labels[i] = benchLabels(i)
			}
			b.ResetTimer()
			for range b.N {
				runtime.GC()
				runtime.ReadMemStats(&before)
				x := NewThings[int]()
				for i := range labels {
					x.Set(i, benchNamespace(i), labels[i])
				}
				runtime.GC()
				runtime.ReadMemStats(&after)
				b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "MB")
				runtime.KeepAlive(x)
			}
		})
	}
}

func BenchmarkRelabelThing(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			x := benchThings(n)
			labels := []selector.Labels{benchLabels(1), benchLabels(n + 1)}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				x.Set(1, benchNamespace(1), labels[i%2])
			}
		})
	}
}

func BenchmarkScopesOfThing(b *testing.B) {
	x := benchScopes()
	things := benchThings(1000)
	b.ReportAllocs()
	found := 0
	for i := 0; b.Loop(); i++ {
		ns, labels, _ := things.Get(i % 1000)
		for range x.Matching(ns, labels) {
			found++
		}
	}
	b.ReportMetric(float64(found)/float64(b.N), "found")
}

func BenchmarkThingsOfScope(b *testing.B) {
	for _, n := range benchSizes {
		x := benchThings(n)
		for _, i := range []int{0, 1} {
			scope := benchScope(i)
			b.Run(fmt.Sprintf("%d/%s", n, scope), func(b *testing.B) {
				found := 0
				for b.Loop() {
					for range x.Matching(scope) {
						found++
					}
				}
				b.ReportMetric(float64(found)/float64(b.N), "found")
			})
		}
	}
}
