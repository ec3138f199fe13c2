// Package annotation reads what pods and namespaces ask of Korat in their
// annotations. It is pure and parses once, strictly: what it cannot read fails
// the pod's ADD with a message that names the annotation, because a pod that
// silently gets something else than it asked for is worse than one that waits.
// The CNI server calls it.
package annotation

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Prefix begins the names of all annotations that Korat reads.
const Prefix = "korat.dev/"

// The annotations. Lists are separated by commas.
const (
	// IPv4Pools and IPv6Pools name the IPPools that addresses come from, in the
	// order in which they are to be used. On a pod, or on a namespace for its pods.
	IPv4Pools = Prefix + "ipv4Pools"
	IPv6Pools = Prefix + "ipv6Pools"
	// IPAddresses are the very addresses of a pod, at most one of each family.
	IPAddresses = Prefix + "ipAddresses"
	// IPFamilies are the families of a pod's addresses: IPv4, IPv6. On a pod or a namespace.
	IPFamilies = Prefix + "ipFamilies"
	// StickyAddress is how long the addresses of a pod are held, when it goes, for
	// its return under the same name, as that of a StatefulSet does: a duration
	// of at most 24h, or "true" for DefaultKeep.
	StickyAddress = Prefix + "stickyAddress"
	// MAC is the hardware address of the pod's interface.
	MAC = Prefix + "mac"
	// AllowedSources are prefixes from which a pod may send beside its addresses.
	AllowedSources = Prefix + "allowedSourcePrefixes"
	// FloatingAddresses are further addresses, outside of the pod, that lead to it.
	FloatingAddresses = Prefix + "floatingAddresses"
	// IngressBandwidth and EgressBandwidth bound what a pod gets and sends, in bits
	// a second as a quantity: 10M.
	IngressBandwidth = Prefix + "ingressBandwidth"
	EgressBandwidth  = Prefix + "egressBandwidth"
)

// DefaultKeep is how long a sticky address is held that names no time: longer
// than a node takes to be drained and a pod to be started on another.
const DefaultKeep = 10 * time.Minute

const (
	maxKeep      = 24 * time.Hour
	minBandwidth = 1_000             // bits a second
	maxBandwidth = 1_000_000_000_000 // as long as the kernel counts bytes in 37 bits
	maxListed    = 64                // entries of one list
)

// Wishes is what a pod asks for. Zero values ask for nothing.
type Wishes struct {
	Pools4, Pools6 []string
	Addrs          []netip.Addr // at most one of a family
	Families       []int        // address lengths, 32 and 128, ascending
	Keep           time.Duration
	MAC            net.HardwareAddr
	Sources        []netip.Prefix // masked, ascending
	Floating       []netip.Addr   // ascending
	// Ingress and Egress are bits a second; 0: no limit.
	Ingress, Egress uint64
}

// Parse reads the annotations of a pod and of its namespace; either may be nil.
// What a pod says goes before what its namespace says. The error joins one for
// each annotation that cannot be read, and names it and what was expected.
func Parse(pod, namespace map[string]string) (Wishes, error) {
	r := reader{pod: pod, namespace: namespace}
	w := Wishes{
		Pools4:   read(&r, IPv4Pools, both, poolNames),
		Pools6:   read(&r, IPv6Pools, both, poolNames),
		Addrs:    read(&r, IPAddresses, podOnly, onePerFamily),
		Families: read(&r, IPFamilies, both, families),
		Keep:     read(&r, StickyAddress, podOnly, keep),
		MAC:      read(&r, MAC, podOnly, mac),
		Sources:  read(&r, AllowedSources, podOnly, prefixes),
		Floating: read(&r, FloatingAddresses, podOnly, addresses),
		Ingress:  read(&r, IngressBandwidth, podOnly, bandwidth),
		Egress:   read(&r, EgressBandwidth, podOnly, bandwidth),
	}
	for _, a := range w.Addrs {
		if len(w.Families) > 0 && !slices.Contains(w.Families, a.BitLen()) {
			r.errs = append(r.errs, fmt.Errorf("annotation %s asks for %s, and %s does not name its family", IPAddresses, a, IPFamilies))
		}
	}
	return w, errors.Join(r.errs...)
}

// Ours returns those of all that Korat reads; nil if there is none.
func Ours(all map[string]string) map[string]string {
	var ours map[string]string
	for name, value := range all {
		if strings.HasPrefix(name, Prefix) {
			if ours == nil {
				ours = map[string]string{}
			}
			ours[name] = value
		}
	}
	return ours
}

type reader struct {
	object         string // what pod is, for messages; empty: a pod
	pod, namespace map[string]string
	errs           []error
}

type where bool

const (
	podOnly where = false
	both    where = true
)

func read[V any](r *reader, name string, from where, parse func(string) (V, error)) (none V) {
	text, set := r.pod[name]
	of := cmp.Or(r.object, "the pod")
	if !set && from == both {
		text, set = r.namespace[name]
		of = "the namespace"
	}
	if !set {
		return none
	}
	v, err := parse(strings.TrimSpace(text))
	if err != nil {
		r.errs = append(r.errs, fmt.Errorf("annotation %s of %s is %q: %w", name, of, text, err))
		return none
	}
	return v
}

// list parses each entry of a list. An empty list is a mistake: nobody writes an
// annotation to say nothing.
func list[V any](text, expected string, parse func(string) (V, error)) ([]V, error) {
	var out []V
	for entry := range strings.SplitSeq(text, ",") {
		v, err := parse(strings.TrimSpace(entry))
		if err != nil {
			return nil, fmt.Errorf("%q: expected %s", strings.TrimSpace(entry), expected)
		}
		out = append(out, v)
	}
	if len(out) > maxListed {
		return nil, fmt.Errorf("%d entries: expected at most %d", len(out), maxListed)
	}
	return out, nil
}

func poolNames(text string) ([]string, error) {
	names, err := list(text, "names of IPPools, separated by commas", func(s string) (string, error) {
		if len(validation.IsDNS1123Subdomain(s)) > 0 {
			return "", errBad
		}
		return s, nil
	})
	if err == nil && len(slices.Compact(slices.Sorted(slices.Values(names)))) < len(names) {
		err = errors.New("expected each IPPool once")
	}
	return names, err
}

// errBad says that an entry is not what is expected, which list tells.
var errBad = errors.New("bad entry")

func addresses(text string) ([]netip.Addr, error) {
	all, err := list(text, "addresses such as 10.244.0.7 or fd00::7, separated by commas", address)
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all), err
}

func address(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err == nil && (a.Is4In6() || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a.IsLinkLocalUnicast()) {
		err = errBad
	}
	return a, err
}

func onePerFamily(text string) ([]netip.Addr, error) {
	all, err := addresses(text)
	if err == nil && (len(all) > 2 || len(all) == 2 && all[0].BitLen() == all[1].BitLen()) {
		err = errors.New("expected at most one address of each family")
	}
	return all, err
}

func families(text string) ([]int, error) {
	all, err := list(text, "IPv4, IPv6 or both, separated by a comma", func(s string) (int, error) {
		switch s {
		case "IPv4":
			return 32, nil
		case "IPv6":
			return 128, nil
		}
		return 0, errBad
	})
	slices.Sort(all)
	return slices.Compact(all), err
}

func keep(text string) (time.Duration, error) {
	switch text {
	case "true":
		return DefaultKeep, nil
	case "false":
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 || d > maxKeep {
		return 0, fmt.Errorf("expected a duration of at most 24h such as 10m, or true")
	}
	return d, nil
}

func mac(text string) (net.HardwareAddr, error) {
	m, err := net.ParseMAC(text)
	const multicast = 1
	if err != nil || len(m) != 6 || m[0]&multicast != 0 || slices.Equal(m, make(net.HardwareAddr, 6)) {
		return nil, errors.New("expected a unicast hardware address such as 02:00:0a:f4:00:07")
	}
	return m, nil
}

func prefixes(text string) ([]netip.Prefix, error) {
	all, err := list(text, "prefixes such as 192.0.2.0/24 without bits behind the length, separated by commas", func(s string) (netip.Prefix, error) {
		p, err := netip.ParsePrefix(s)
		if err == nil && (p.Addr().Is4In6() || p.Masked() != p) {
			err = errBad
		}
		return p, err
	})
	slices.SortFunc(all, netip.Prefix.Compare)
	return slices.Compact(all), err
}

// quantity is what bandwidth takes of the quantities of Kubernetes: their parser
// multiplies out any exponent, so that 1e-2000000000 would cost the agent minutes
// and gigabytes.
var quantity = regexp.MustCompile(`^[0-9]{1,15}(\.[0-9]{1,15})?(k|[MGT]|[KMGT]i|[eE][0-9]{1,2})?$`)

func bandwidth(text string) (uint64, error) {
	if quantity.MatchString(text) {
		q, err := resource.ParseQuantity(text)
		if err == nil && q.Value() >= minBandwidth && q.Value() <= maxBandwidth {
			return uint64(q.Value()), nil
		}
	}
	return 0, errors.New("expected bits a second from 1k to 1T, such as 10M")
}
