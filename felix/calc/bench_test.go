package calc_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/koratnet/korat/felix/calc"
	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/ipam"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/selector"
)

// What one change may cost in the largest cluster that is measured.
const (
	changeLimit = 50 * time.Microsecond // one remote pod changed: Put and Flush
	heapLimit   = 300                   // MB, everything the engine holds
	growthLimit = 2                     // times the cost with ten times the pods
)

// cluster is a model of a cluster: 1,000 namespaces with ten apps each, 2,500
// nodes, 200 pods on this one, 10,000 policies, each with one app as subject and
// the next app and all of the next namespace as peers.
type cluster struct{ pods int }

const (
	clusterNamespaces = 1000
	clusterApps       = 10
	clusterNodes      = 2500
	clusterPolicies   = 10_000
	clusterLocal      = 200
)

func nsName(i int) string  { return fmt.Sprint("ns-", i%clusterNamespaces) }
func appName(i int) string { return fmt.Sprint("app-", i%clusterApps) }

// local reports whether pod i runs here: spread over the namespaces.
func (c cluster) local(i int) bool { return i%(c.pods/clusterLocal-1) == 0 }

// pod returns pod i; each version of it has another label and address.
func (c cluster) pod(i, version int) event.Event {
	node := fmt.Sprint("node-", 1+i%(clusterNodes-1))
	if c.local(i) {
		node = "me"
	}
	p := &event.Pod{
		Namespace: nsName(i), Name: fmt.Sprint("pod-", i), Node: node,
		Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10 + byte(version&1), byte(i >> 16), byte(i >> 8), byte(i)})},
		Labels: selector.MakeLabels(map[string]string{
			"app": appName(i/clusterNamespaces + version), "tier": fmt.Sprint("tier-", i%3),
			"version": fmt.Sprint("v", i%7), "pod-template-hash": fmt.Sprint("h", i%5000),
		}),
	}
	return event.Set(p.Namespace+"/"+p.Name, p)
}

func (c cluster) endpoint(i int) event.Event {
	pod := c.pod(i, 0).Value.(*event.Pod)
	iface := fmt.Sprint("kor", i)
	return event.Set(iface, &event.Endpoint{
		Handle:    ipam.Handle{Namespace: pod.Namespace, Pod: pod.Name},
		Interface: iface, Addrs: pod.Addrs, Generation: uint64(i),
	})
}

// policy returns policy i; each version of it allows another port.
func (c cluster) policy(i, version int) event.Event {
	next := policy.Scope{Namespace: nsName(i), Pods: selector.Equals("app", appName(i/clusterNamespaces+1))}
	other := policy.Scope{Namespaces: selector.Equals("kubernetes.io/metadata.name", nsName(i+1))}
	p := &policy.Policy{
		Key:  policy.Key{Namespace: nsName(i), Name: fmt.Sprint("np-", i)},
		Tier: policy.DefaultTier, Order: 1000, Types: policy.Ingress,
		Subject: policy.Scope{Namespace: nsName(i), Pods: selector.Equals("app", appName(i/clusterNamespaces))},
		Ingress: []policy.Rule{{
			Action: policy.Allow, Peers: []policy.Peer{{Scope: &next}, {Scope: &other}},
			Ports: []policy.Port{{Protocol: policy.TCP, First: 80, Last: 80 + uint16(version)}},
		}},
	}
	return event.Set(p.Key.String(), &event.Policy{Policy: p})
}

// load returns an engine that knows the whole cluster.
func (c cluster) load() *calc.Engine {
	e := calc.New(calc.Config{Node: "me"})
	for i := range clusterNamespaces {
		name := nsName(i)
		e.Put(event.Set(name, &event.Namespace{
			Name: name, Labels: selector.MakeLabels(map[string]string{"kubernetes.io/metadata.name": name}),
		}))
	}
	for i := range c.pods {
		e.Put(c.pod(i, 0))
		if c.local(i) {
			e.Put(c.endpoint(i))
		}
	}
	for i := range clusterPolicies {
		e.Put(c.policy(i, 0))
	}
	e.Synced(event.API | event.CNI | event.Neighbours)
	e.Flush()
	return e
}

// remote returns the number of a pod of another node, a different one for each n.
func (c cluster) remote(n int) int {
	for i := n * 7919 % c.pods; ; i++ {
		if !c.local(i % c.pods) {
			return i % c.pods
		}
	}
}

func heapMB() float64 {
	runtime.GC()
	runtime.GC() // the second frees what weakly held labels kept in the first
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / 1e6
}

var sizes = []int{25_000, 250_000}

// BenchmarkRemotePodChange: a pod of another node gets another label and
// another address.
func BenchmarkRemotePodChange(b *testing.B) {
	for _, pods := range sizes {
		b.Run(fmt.Sprint("pods=", pods), func(b *testing.B) {
			c, before := cluster{pods}, heapMB()
			e := c.load()
			heap := heapMB() - before
			n := 0
			for b.Loop() {
				b.StopTimer()
				ev := c.pod(c.remote(n), n/c.pods+1)
				n++
				b.StartTimer()
				e.Put(ev)
				e.Flush()
			}
			b.ReportMetric(float64(changeLimit.Nanoseconds()), "limit-ns/op")
			b.ReportMetric(heap, "heap-MB")
			b.ReportMetric(heapLimit, "limit-MB")
			runtime.KeepAlive(e)
		})
	}
}

// BenchmarkRemotePodGrowth: how much more a change costs with ten times the pods.
func BenchmarkRemotePodGrowth(b *testing.B) {
	var cost [2]time.Duration
	var clusters [2]cluster
	var engines [2]*calc.Engine
	for i, pods := range sizes {
		clusters[i] = cluster{pods}
		engines[i] = clusters[i].load()
	}
	n := 0
	for b.Loop() {
		for i, c := range clusters { // by turns, so that both have the same weather
			ev := c.pod(c.remote(n), n/c.pods+1)
			begin := time.Now()
			engines[i].Put(ev)
			engines[i].Flush()
			cost[i] += time.Since(begin)
		}
		n++
	}
	b.ReportMetric(float64(cost[1])/float64(cost[0]), "times")
	b.ReportMetric(growthLimit, "limit-times")
}

// BenchmarkLocalPodChange: a pod of this node comes and goes with its sandbox.
func BenchmarkLocalPodChange(b *testing.B) {
	for _, pods := range sizes {
		b.Run(fmt.Sprint("pods=", pods), func(b *testing.B) {
			c := cluster{pods}
			e := c.load()
			add := []event.Event{c.endpoint(0), c.pod(0, 0)}
			for b.Loop() {
				for _, ev := range add {
					e.Put(gone(ev))
				}
				e.Flush()
				for _, ev := range add {
					e.Put(ev)
				}
				e.Flush()
			}
		})
	}
}

// BenchmarkPolicyChange: a policy that selects local pods allows another port.
func BenchmarkPolicyChange(b *testing.B) {
	c := cluster{sizes[1]}
	e := c.load()
	n := 0
	for b.Loop() {
		n++
		e.Put(c.policy(0, n%2))
		e.Flush()
	}
}

// BenchmarkFirstFlush: everything at once, as after a restart.
func BenchmarkFirstFlush(b *testing.B) {
	for b.Loop() {
		cluster{sizes[1]}.load()
	}
}
