package dataplanetest

import (
	"fmt"
	"math/rand/v2"
	"net/netip"

	"sigs.k8s.io/yaml"

	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/selector"
)

// dice draw clusters of few distinct labels, addresses and ports, so that things
// meet. The tests of policy/eval draw theirs themselves: these here have what the
// kernel can be asked and a second opinion of words cannot, such as hooks, host
// endpoints, a tier that nobody defined, ICMPv6, and lists longer than a rule has room
// for; those there note of each selector what it means, for a second opinion.
type dice struct{ *rand.Rand }

func pick[T any](d dice, from ...T) T { return from[d.IntN(len(from))] }

// one is true one time in so many.
func (d dice) one(in int) bool { return d.IntN(in) == 0 }

// some returns a list of up to most items.
func some[T any](d dice, most int, item func() T) []T {
	var out []T
	for range d.IntN(most + 1) {
		out = append(out, item())
	}
	return out
}

func (d dice) labels() map[string]string {
	l := map[string]string{}
	for range d.IntN(4) {
		l[pick(d, "a", "b", "c")] = pick(d, "x", "y", "z", "")
	}
	return l
}

func (d dice) namespace() string { return pick(d, "n0", "n0", "n0", "n1", "n2") }

// net returns a range, in text, that has some of the addresses of sites.
func (d dice) net() string {
	return pick(d, "0.0.0.0/0", "::/0", "10.0.0.0/8", "10.1.0.0/24", "10.1.0.2/31", "10.1.0.3/32", "10.1.0.0/16", "10.1.1.0/24",
		"192.168.0.0/16", "192.168.7.0/24", "192.168.7.9/32", "192.168.8.0/30", "10.96.0.0/16",
		"fd00::/8", "fd01::/64", "fd01::2/127", "fd01::4/128", "fd01:1::/32", "fd07::/16", "fd08::9/128", "fd96::/64")
}

func (d dice) nets() []netip.Prefix {
	return some(d, 3, func() netip.Prefix { return netip.MustParsePrefix(d.net()) })
}

func (d dice) namedPorts() []policy.NamedPort {
	return some(d, 2, func() policy.NamedPort {
		return policy.NamedPort{
			Name: pick(d, "http", "dns"), Protocol: pick(d, policy.TCP, policy.TCP, policy.UDP, policy.SCTP), Port: pick(d, uint16(80), 81, 8080),
		}
	})
}

// selector draws an expression of Korat's own language.
func (d dice) selector() string {
	k, v := pick(d, "a", "b", "c"), pick(d, "x", "y", "z", "")
	switch d.IntN(9) {
	case 0:
		return fmt.Sprintf("%s == '%s'", k, v)
	case 1:
		return fmt.Sprintf("%s != '%s'", k, v)
	case 2:
		return fmt.Sprintf("has(%s)", k)
	case 3:
		return fmt.Sprintf("!has(%s)", k)
	case 4:
		return fmt.Sprintf("%s in {'x', '%s'}", k, v)
	case 5:
		return fmt.Sprintf("%s not in {'x', '%s'}", k, v)
	case 6:
		return fmt.Sprintf("has(a) && (has(%s) || b starts with '%s')", k, v)
	}
	return "all()"
}

func made(l map[string]string) selector.Labels { return selector.MakeLabels(l) }

// text writes an object for people.
func text(kind, name string, o any) string {
	y, err := yaml.Marshal(o)
	if err != nil {
		return fmt.Sprintf("%s %s: %+v (%v)\n", kind, name, o, err)
	}
	return fmt.Sprintf("--- %s %s\n%s", kind, name, y)
}
