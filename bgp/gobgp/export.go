package gobgp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"

	"github.com/koratnet/korat/bgp"
)

// A path that we originate carries its kinds as LOCAL_PREF. The highest values
// there are do two things at once: nothing learned is better than a path of our
// own, and the export policy tells the kinds apart by comparing an integer. They
// never leave: the export policy sets the preference to the usual 100, and GoBGP
// takes the attribute off for other ASes.
const (
	preferBlocks     = math.MaxUint32
	preferHosts      = math.MaxUint32 - 1
	preferBoth       = math.MaxUint32 - 2
	preferOnTheWire  = 100
	familyIPv4       = 0 // index of GoBGP's list of families
	familyIPv6       = 1
	pathsPerRequest  = 500
	toldHosts        = "told-hosts"
	notToldBlocks    = "not-told-blocks"
	exportPolicyName = "export"
	importPolicyName = "import"
)

// nobody keeps a neighbour set from being empty: GoBGP takes an empty one to
// match every neighbour.
const nobody = "255.255.255.255/32"

func preference(kinds bgp.Advertise) uint32 {
	switch kinds {
	case bgp.Blocks:
		return preferBlocks
	case bgp.Hosts:
		return preferHosts
	default:
		return preferBoth
	}
}

// installPolicies sets what is told to whom. The statements are tried in order,
// the first that matches decides, and what none matches is not told:
//
//	learned                                   not told
//	block      and peer not in not-told-blocks  told
//	host       and peer in told-hosts           told
//	both kinds and either                       told
//
// Blocks are told to all but the listed, because most peers are mesh peers: both
// lists stay short, and GoBGP walks them for every path and peer. Imported is
// everything but what carries one of our marks.
func installPolicies(ctx context.Context, srv *server.BgpServer) error {
	for _, name := range []string{toldHosts, notToldBlocks} {
		if err := srv.AddDefinedSet(ctx, &api.AddDefinedSetRequest{DefinedSet: neighbourSet(name, nobody)}); err != nil {
			return fmt.Errorf("neighbour set %s: %w", name, err)
		}
	}
	wantsBlocks := &api.MatchSet{Type: api.MatchSet_TYPE_INVERT, Name: notToldBlocks}
	wantsHosts := &api.MatchSet{Type: api.MatchSet_TYPE_ANY, Name: toldHosts}
	export := []*api.Statement{
		refuse("learned-inside", &api.Conditions{RouteType: api.Conditions_ROUTE_TYPE_INTERNAL}),
		refuse("learned-outside", &api.Conditions{RouteType: api.Conditions_ROUTE_TYPE_EXTERNAL}),
		tell("block", preferBlocks, wantsBlocks),
		tell("host", preferHosts, wantsHosts),
		tell("both-as-block", preferBoth, wantsBlocks),
		tell("both-as-host", preferBoth, wantsHosts),
	}
	var imported []*api.Statement
	for _, pref := range []uint32{preferBlocks, preferHosts, preferBoth} {
		imported = append(imported, refuse(fmt.Sprintf("preference-%d", pref), &api.Conditions{
			RouteType: api.Conditions_ROUTE_TYPE_INTERNAL, LocalPrefEq: &api.LocalPrefEq{Value: pref},
		}))
	}
	return errors.Join(
		installPolicy(ctx, srv, exportPolicyName, export, api.PolicyDirection_POLICY_DIRECTION_EXPORT, api.RouteAction_ROUTE_ACTION_REJECT),
		installPolicy(ctx, srv, importPolicyName, imported, api.PolicyDirection_POLICY_DIRECTION_IMPORT, api.RouteAction_ROUTE_ACTION_ACCEPT),
	)
}

func installPolicy(ctx context.Context, srv *server.BgpServer, name string, statements []*api.Statement,
	dir api.PolicyDirection, otherwise api.RouteAction,
) error {
	p := &api.Policy{Name: name, Statements: statements}
	if err := srv.AddPolicy(ctx, &api.AddPolicyRequest{Policy: p}); err != nil {
		return fmt.Errorf("%s policy: %w", name, err)
	}
	err := srv.SetPolicyAssignment(ctx, &api.SetPolicyAssignmentRequest{Assignment: &api.PolicyAssignment{
		Direction: dir, Policies: []*api.Policy{p}, DefaultAction: otherwise,
	}})
	if err != nil {
		return fmt.Errorf("%s policy: %w", name, err)
	}
	return nil
}

func refuse(name string, when *api.Conditions) *api.Statement {
	return &api.Statement{
		Name: name, Conditions: when, Actions: &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_REJECT},
	}
}

func tell(name string, pref uint32, peers *api.MatchSet) *api.Statement {
	return &api.Statement{
		Name:       name,
		Conditions: &api.Conditions{NeighborSet: peers, LocalPrefEq: &api.LocalPrefEq{Value: pref}},
		Actions: &api.Actions{
			RouteAction: api.RouteAction_ROUTE_ACTION_ACCEPT,
			LocalPref:   &api.LocalPrefAction{Value: preferOnTheWire},
		},
	}
}

func neighbourSet(name string, prefixes ...string) *api.DefinedSet {
	return &api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_NEIGHBOR, Name: name, List: prefixes}
}

// tellPeer puts the peer into the neighbour sets, or takes it out, so that it is
// told what instead of before. GoBGP changes a set in place only by adding and
// removing members: a set that is replaced is not seen by the policy.
func tellPeer(ctx context.Context, srv *server.BgpServer, peer netip.Addr, before, what bgp.Advertise) error {
	return errors.Join(
		setMember(ctx, srv, toldHosts, peer, before&bgp.Hosts != 0, what&bgp.Hosts != 0),
		setMember(ctx, srv, notToldBlocks, peer, before&bgp.Blocks == 0, what&bgp.Blocks == 0),
	)
}

func setMember(ctx context.Context, srv *server.BgpServer, name string, peer netip.Addr, is, shall bool) error {
	if is == shall {
		return nil
	}
	set := neighbourSet(name, netip.PrefixFrom(peer.WithZone(""), peer.BitLen()).String())
	var err error
	if shall {
		err = srv.AddDefinedSet(ctx, &api.AddDefinedSetRequest{DefinedSet: set})
	} else {
		err = srv.DeleteDefinedSet(ctx, &api.DeleteDefinedSetRequest{DefinedSet: set})
	}
	if err != nil {
		return fmt.Errorf("neighbour set %s: %w", name, err)
	}
	return nil
}

func addPaths(srv *server.BgpServer, paths map[netip.Prefix]bgp.Advertise) error {
	shared := map[originated][]packet.PathAttributeInterface{}
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
	for prefix, kinds := range paths {
		o := originated{prefix.Addr().Is4(), kinds}
		if shared[o] == nil {
			shared[o] = o.attributes()
		}
		batch = append(batch, localPath(prefix, shared[o]))
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
			batch = append(batch, localPath(prefix, originated{v4: prefix.Addr().Is4()}.attributes()))
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

// originated is what the attributes of a path of ours depend on.
type originated struct {
	v4    bool
	kinds bgp.Advertise
}

// attributes returns a complete set: FRR drops a session over a path without
// AS_PATH. The unspecified next hop becomes the session's local address.
func (o originated) attributes() []packet.PathAttributeInterface {
	self := netip.IPv6Unspecified()
	if o.v4 {
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
		packet.NewPathAttributeLocalPref(preference(o.kinds)),
	}
}

// countByKind counts the originated paths of one family that a peer is told who
// asked for kinds.
func countByKind(paths map[netip.Prefix]bgp.Advertise, v4 bool, kinds bgp.Advertise) int {
	n := 0
	for prefix := range maps.Keys(paths) {
		if prefix.Addr().Is4() == v4 && paths[prefix]&kinds != 0 {
			n++
		}
	}
	return n
}
