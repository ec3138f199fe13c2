package gobgp

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"
)

const (
	familyIPv4      = 0 // index of GoBGP's list of families
	familyIPv6      = 1
	pathsPerRequest = 500
)

// addPaths originates prefixes; prefs are the preferences of their labels.
func addPaths(srv *server.BgpServer, paths map[netip.Prefix]said, prefs map[label]uint32) error {
	shared := map[label][]packet.PathAttributeInterface{}
	batch := make([]*apiutil.Path, 0, min(len(paths), pathsPerRequest))
	var errs []error
	flush := func() {
		if len(batch) > 0 {
			if _, err := srv.AddPath(apiutil.AddPathRequest{Paths: batch}); err != nil {
				errs = append(errs, fmt.Errorf("announce %d paths from %s: %w", len(batch), batch[0].Nlri, err))
			}
			batch = batch[:0]
		}
	}
	for prefix, as := range paths {
		k := label{prefix.Addr().Is4(), as}
		if shared[k] == nil {
			shared[k] = attributes(k.v4, prefs[k])
		}
		batch = append(batch, localPath(prefix, shared[k]))
		if len(batch) == pathsPerRequest {
			flush()
		}
	}
	flush()
	return errors.Join(errs...)
}

func deletePaths(srv *server.BgpServer, prefixes []netip.Prefix) error {
	var errs []error
	for some := range slices.Chunk(prefixes, pathsPerRequest) {
		batch := make([]*apiutil.Path, 0, len(some))
		for _, prefix := range some {
			batch = append(batch, localPath(prefix, attributes(prefix.Addr().Is4(), 0)))
		}
		// Never empty: GoBGP has requests that mean "all paths of ours".
		if err := srv.DeletePath(apiutil.DeletePathRequest{Paths: batch}); err != nil {
			errs = append(errs, fmt.Errorf("withdraw %d paths from %s: %w", len(some), some[0], err))
		}
	}
	return errors.Join(errs...)
}

func localPath(prefix netip.Prefix, attrs []packet.PathAttributeInterface) *apiutil.Path {
	nlri, err := packet.NewIPAddrPrefix(prefix)
	if err != nil {
		panic("bug: path " + prefix.String() + " was not checked: " + err.Error())
	}
	family := packet.RF_IPv6_UC
	if prefix.Addr().Is4() {
		family = packet.RF_IPv4_UC
	}
	return &apiutil.Path{Family: family, Nlri: nlri, Attrs: attrs}
}

// attributes returns a complete set: FRR drops a session over a path without
// AS_PATH. The unspecified next hop becomes the session's local address.
func attributes(v4 bool, pref uint32) []packet.PathAttributeInterface {
	self := netip.IPv6Unspecified()
	if v4 {
		self = netip.IPv4Unspecified()
	}
	nextHop, err := packet.NewPathAttributeNextHop(self)
	if err != nil {
		panic("bug: next hop " + self.String() + ": " + err.Error())
	}
	return []packet.PathAttributeInterface{
		packet.NewPathAttributeOrigin(packet.BGP_ORIGIN_ATTR_TYPE_IGP),
		packet.NewPathAttributeAsPath(nil),
		nextHop,
		packet.NewPathAttributeLocalPref(pref),
	}
}
