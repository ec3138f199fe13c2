package floating_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/koratnet/korat/felix/event"
	"github.com/koratnet/korat/felix/floating"
	"github.com/koratnet/korat/ipam"
	"github.com/koratnet/korat/policy/selector"
)

var (
	address = netip.MustParseAddr("203.0.113.7")
	other   = netip.MustParseAddr("203.0.113.8")
)

// world knows the labels of what it lists.
type world struct{ namespaces, nodes map[string]map[string]string }

func (w world) NamespaceLabels(name string) (selector.Labels, bool) {
	m, ok := w.namespaces[name]
	return selector.MakeLabels(m), ok
}

func (w world) NodeLabels(name string) (selector.Labels, bool) {
	m, ok := w.nodes[name]
	return selector.MakeLabels(m), ok
}

func pool(name, cidr string, uses ipam.Use) *event.Pool {
	return &event.Pool{Pool: ipam.Pool{Name: name, CIDR: netip.MustParsePrefix(cidr), Uses: uses}}
}

func pod(namespace, name, node string, created int64, addrs ...netip.Addr) *event.Pod {
	return &event.Pod{Namespace: namespace, Name: name, Node: node, Floating: &event.Floating{Addrs: addrs, Created: created}}
}

func book(pools []*event.Pool, pods ...*event.Pod) *floating.Book {
	b := floating.New()
	for _, p := range pools {
		b.SetPool(p.Name, p)
	}
	for _, p := range pods {
		b.SetPod(p.Namespace+"/"+p.Name, p)
	}
	return b
}

func TestAnAddressLeadsToTheOldestPodThatMayHaveIt(t *testing.T) {
	w := world{
		namespaces: map[string]map[string]string{"shop": {"team": "a"}, "bank": {"team": "b"}},
		nodes:      map[string]map[string]string{"n1": {"edge": "yes"}, "n2": {}},
	}
	open := pool("p", "203.0.113.0/24", ipam.Floating)
	ofTeam, ofEdge := pool("p", "203.0.113.0/24", ipam.Floating), pool("p", "203.0.113.0/24", ipam.Floating)
	ofTeam.Namespaces, ofEdge.Nodes = selector.Equals("team", "b"), selector.Has("edge")
	narrow := pool("n", "203.0.113.0/28", ipam.Floating)
	narrow.Namespaces = selector.Equals("team", "b")
	for name, c := range map[string]struct {
		pools []*event.Pool
		pods  []*event.Pod
		want  string
	}{
		"one asks":                   {[]*event.Pool{open}, []*event.Pod{pod("shop", "a", "n1", 5, address)}, "a"},
		"the older of two":           {[]*event.Pool{open}, []*event.Pod{pod("shop", "a", "n1", 5, address), pod("bank", "b", "n2", 4, address)}, "b"},
		"of equally old ones":        {[]*event.Pool{open}, []*event.Pod{pod("shop", "b", "n1", 5, address), pod("shop", "a", "n2", 5, address)}, "a"},
		"nobody asks":                {[]*event.Pool{open}, []*event.Pod{pod("shop", "a", "n1", 5, other)}, ""},
		"no pool":                    {nil, []*event.Pod{pod("shop", "a", "n1", 5, address)}, ""},
		"the pool has pods":          {[]*event.Pool{pool("p", "203.0.113.0/24", ipam.Floating|ipam.Pods)}, []*event.Pod{pod("shop", "a", "n1", 5, address)}, ""},
		"another range":              {[]*event.Pool{pool("p", "198.51.100.0/24", ipam.Floating)}, []*event.Pod{pod("shop", "a", "n1", 5, address)}, ""},
		"the older may not: team":    {[]*event.Pool{ofTeam}, []*event.Pod{pod("shop", "a", "n1", 4, address), pod("bank", "b", "n1", 5, address)}, "b"},
		"the older may not: node":    {[]*event.Pool{ofEdge}, []*event.Pod{pod("shop", "a", "n2", 4, address), pod("shop", "b", "n1", 5, address)}, "b"},
		"a namespace nobody knows":   {[]*event.Pool{ofTeam}, []*event.Pod{pod("new", "a", "n1", 5, address)}, ""},
		"the narrowest pool decides": {[]*event.Pool{open, narrow}, []*event.Pod{pod("shop", "a", "n1", 5, address)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := ""
			if h := book(c.pools, c.pods...).Holder(address, w); h != nil {
				got = h.Name
			}
			if got != c.want {
				t.Errorf("it leads to %q, want %q", got, c.want)
			}
		})
	}
}

func TestARefusalNamesWhatIsInTheWay(t *testing.T) {
	w := world{namespaces: map[string]map[string]string{"shop": {}}, nodes: map[string]map[string]string{"n1": {}}}
	disabled, team, edge := pool("p", "203.0.113.0/24", ipam.Floating), pool("p", "203.0.113.0/24", ipam.Floating), pool("p", "203.0.113.0/24", ipam.Floating)
	disabled.Disabled, team.Namespaces, edge.Nodes = true, selector.Has("team"), selector.Has("edge")
	open := []*event.Pool{pool("p", "203.0.113.0/24", ipam.Floating)}
	for name, c := range map[string]struct {
		b    *floating.Book
		want string
	}{
		"free":       {book(open), ""},
		"its own":    {book(open, pod("shop", "me", "n1", 5, address)), ""},
		"younger":    {book(open, pod("shop", "me", "n1", 5, address), pod("shop", "you", "n2", 6, address)), ""},
		"older":      {book(open, pod("shop", "me", "n1", 5, address), pod("bank", "you", "n2", 4, address)), `203.0.113.7 leads to pod bank/you on node "n2", which was there first`},
		"no pool":    {book(nil), "203.0.113.7 is in no IPPool of which allowedUses is Floating alone"},
		"disabled":   {book([]*event.Pool{disabled}), `203.0.113.7 is of IPPool "p", which is disabled`},
		"namespaces": {book([]*event.Pool{team}), `203.0.113.7 is of IPPool "p", whose namespaceSelector does not match namespace shop`},
		"nodes":      {book([]*event.Pool{edge}), `203.0.113.7 is of IPPool "p", whose nodeSelector does not match node n1`},
	} {
		t.Run(name, func(t *testing.T) {
			got := ""
			if err := c.b.Refusal(address, "shop", "me", "n1", w); err != nil {
				got = err.Error()
			}
			if !strings.Contains(got, c.want) || (got == "") != (c.want == "") {
				t.Errorf("refused: %q, want %q", got, c.want)
			}
		})
	}
}

func TestAnAddressIsFreeAgainWhenItsPodIsGone(t *testing.T) {
	b := book([]*event.Pool{pool("p", "203.0.113.0/24", ipam.Floating)}, pod("shop", "a", "n1", 4, address), pod("shop", "b", "n1", 5, address))
	if touched := b.SetPod("shop/a", pod("shop", "a", "n1", 4, other)); len(touched) != 2 {
		t.Errorf("touched %v, want what it had and what it has", touched)
	}
	if h := b.Holder(address, world{}); h == nil || h.Name != "b" {
		t.Errorf("it leads to %v, want b", h)
	}
	b.SetPod("shop/b", nil)
	b.SetPod("shop/a", &event.Pod{Namespace: "shop", Name: "a"})
	if left := b.Asked(); len(left) != 0 {
		t.Errorf("asked for: %v, want nothing", left)
	}
}
