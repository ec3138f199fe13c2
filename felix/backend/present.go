package backend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/koratnet/korat/felix/apply"
	"github.com/koratnet/korat/felix/kernel/ipset"
	kernelnft "github.com/koratnet/korat/felix/kernel/nftables"
	"github.com/koratnet/korat/felix/kernel/xtables"
	"github.com/koratnet/korat/felix/nft"
	"github.com/koratnet/korat/policy/ir"
)

// Present implements apply.Planes. What cannot be read counts as not there; the
// error says so.
func (p *Planes) Present(context.Context) ([]apply.Plane, error) {
	var found []apply.Plane
	var errs []error
	look := func(plane apply.Plane, there func() (bool, error)) {
		ok, err := there()
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", plane.Name, err))
		}
		if ok {
			found = append(found, plane)
		}
	}
	look(ipTables, func() (bool, error) {
		for _, there := range []func() (bool, error){
			func() (bool, error) { return hasChains(readNFT) },
			func() (bool, error) { return hasChains(xtables.Legacy) },
			ipset.Present,
		} {
			if ok, err := there(); ok || err != nil {
				return ok, err
			}
		}
		return false, nil
	})
	look(nfTables, func() (bool, error) { return kernelnft.Exists(kernelnft.Inet, nft.TableName) })
	return found, errors.Join(errs...)
}

// ourChains begins the names of the chains that the built-in ones jump to.
const ourChains = "KORAT-"

type reader func(f ir.Family, table string, own func(chain string) bool) ([]xtables.Chain, error)

// hasChains reports whether one of our chains is in a table of either family.
func hasChains(read reader) (bool, error) {
	var errs []error
	for _, f := range []ir.Family{ir.IPv4, ir.IPv6} {
		for _, table := range []string{"raw", "mangle", "nat", "filter"} {
			chains, err := read(f, table, func(chain string) bool { return strings.HasPrefix(chain, ourChains) })
			errs = append(errs, err)
			if slices.ContainsFunc(chains, func(c xtables.Chain) bool { return strings.HasPrefix(c.Name, ourChains) }) {
				return true, nil
			}
		}
	}
	return false, errors.Join(errs...)
}

func readNFT(f ir.Family, table string, own func(string) bool) ([]xtables.Chain, error) {
	n, err := xtables.OpenNFT(f)
	if err != nil {
		return nil, err
	}
	defer n.Close()
	return n.Table(table, own)
}

// proxyTable is that of kube-proxy in its mode nftables, of families ip and ip6.
const proxyTable = "kube-proxy"

// ProxyUsesNFTables reports whether kube-proxy runs in its mode nftables, in the
// network namespace of the calling thread.
func ProxyUsesNFTables() (bool, error) {
	var errs []error
	for _, f := range []kernelnft.Family{kernelnft.IPv4, kernelnft.IPv6} {
		found, err := kernelnft.Exists(f, proxyTable)
		if found {
			return true, nil
		}
		errs = append(errs, err)
	}
	return false, errors.Join(errs...)
}
