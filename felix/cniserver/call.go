package cniserver

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/ns"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"
	"github.com/containernetworking/cni/pkg/utils"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/koratnet/korat/felix/cniserver/wire"
)

// conf is the plugin's part of a conflist.
type conf struct {
	types.NetConf
	// IPv4Pools and IPv6Pools name the pools of pods that no annotation tells.
	IPv4Pools []string `json:"ipv4Pools"`
	IPv6Pools []string `json:"ipv6Pools"`
}

// call carries out a call and returns what the plugin prints. It reads what the
// runtime gave as the CNI specification says, which the plugin does not.
func (s *Server) call(ctx context.Context, c *wire.Call) (printed []byte, failed bool) {
	printed, err := s.answer(ctx, c)
	if err == nil {
		return printed, false
	}
	printed, err = json.Marshal(cniError(err))
	if err != nil {
		panic(fmt.Sprintf("bug: a CNI error cannot be written: %v", err))
	}
	return append(printed, '\n'), true
}

func (s *Server) answer(ctx context.Context, c *wire.Call) ([]byte, error) {
	if err := validate(c); err != nil {
		return nil, err
	}
	conf, err := parse(c)
	if err != nil {
		return nil, err
	}
	r, dns, err := request(c, conf)
	if err != nil {
		return nil, err
	}
	if c.Command == wire.Add && inAgentsNamespace(c) {
		return nil, errOwnNamespace
	}
	reply := s.Handle(ctx, r)
	switch {
	case reply.Error != nil:
		return nil, reply.Error
	case c.Command == wire.Del && inAgentsNamespace(c):
		return nil, errOwnNamespace
	case reply.Added == nil:
		return nil, nil
	}
	return render(reply.Added, c, dns, conf.CNIVersion)
}

// validate looks at the environment. Which variables must be there is laid down.
func validate(c *wire.Call) error {
	switch c.Command {
	case wire.Add, wire.Check, wire.Del, wire.Status, wire.GC:
	default:
		return &wire.Error{Code: types.ErrInvalidEnvironmentVariables, Message: fmt.Sprintf("unknown CNI_COMMAND: %s", c.Command)}
	}
	var missing []string
	need := func(name, value string) {
		if value == "" {
			missing = append(missing, name)
		}
	}
	ofContainer := c.Command == wire.Add || c.Command == wire.Check || c.Command == wire.Del
	if ofContainer {
		need(wire.EnvContainerID, c.ContainerID)
		if c.Command != wire.Del {
			need(wire.EnvNetns, c.Netns)
		}
		need(wire.EnvIfName, c.IfName)
	}
	need(wire.EnvPath, c.Path)
	if len(missing) > 0 {
		return &wire.Error{Code: types.ErrInvalidEnvironmentVariables, Message: fmt.Sprintf("required env variables [%s] missing", strings.Join(missing, ","))}
	}
	if !ofContainer {
		return nil
	}
	err := utils.ValidateContainerID(c.ContainerID)
	if err == nil {
		err = utils.ValidateInterfaceName(c.IfName)
	}
	return foreign(err)
}

// foreign returns the error of a library of containernetworking as ours.
func foreign(err *types.Error) error {
	if err == nil {
		return nil
	}
	return &wire.Error{Code: err.Code, Message: err.Msg, Details: err.Details}
}

// parse reads the configuration and sees that its version has the verb.
func parse(c *wire.Call) (*conf, error) {
	x := &conf{}
	if err := json.Unmarshal(c.Config, x); err != nil {
		return nil, &wire.Error{Code: types.ErrDecodingFailure, Message: "network configuration", Details: err.Error()}
	}
	if err := utils.ValidateNetworkName(x.Name); err != nil {
		return nil, foreign(err)
	}
	if !slices.Contains(wire.Versions, x.CNIVersion) {
		return nil, &wire.Error{
			Code: types.ErrIncompatibleCNIVersion, Message: "incompatible CNI versions",
			Details: fmt.Sprintf("config is %q, plugin supports %q", x.CNIVersion, wire.Versions),
		}
	}
	since := map[wire.Command]string{wire.Check: "0.4.0", wire.Status: "1.1.0", wire.GC: "1.1.0"}[c.Command]
	if since != "" && slices.Index(wire.Versions, x.CNIVersion) < slices.Index(wire.Versions, since) {
		return nil, &wire.Error{Code: types.ErrIncompatibleCNIVersion, Message: fmt.Sprintf("config version does not allow %s", c.Command)}
	}
	return x, nil
}

// request returns what c asks, and the DNS that another plugin for IPAM told.
func request(c *wire.Call, x *conf) (r wire.Request, dns types.DNS, err error) {
	r = c.Request(x.Name)
	switch c.Command {
	case wire.Add:
		r.Pools4, r.Pools6 = x.IPv4Pools, x.IPv6Pools
		if len(c.Assigned) > 0 {
			r.Given, dns, err = assigned(c, x)
		}
	case wire.Check:
		r.Addrs, err = previous(x)
	case wire.GC:
		for _, v := range x.ValidAttachments {
			r.Valid = append(r.Valid, wire.Attachment{ContainerID: v.ContainerID, IfName: v.IfName})
		}
	}
	return r, dns, err
}

// assigned reads the result of another plugin for IPAM, which is of our
// configuration's version if it does not say.
func assigned(c *wire.Call, x *conf) ([]netip.Addr, types.DNS, error) {
	read := func() (*current.Result, error) {
		var said struct {
			CNIVersion string `json:"cniVersion"`
		}
		if err := json.Unmarshal(c.Assigned, &said); err != nil {
			return nil, err
		}
		if said.CNIVersion == "" {
			said.CNIVersion = x.CNIVersion
		}
		r, err := create.Create(said.CNIVersion, c.Assigned)
		if err != nil {
			return nil, err
		}
		return current.NewResultFromResult(r)
	}
	res, err := read()
	if err != nil {
		return nil, types.DNS{}, &wire.Error{Code: types.ErrDecodingFailure, Message: "result of IPAM plugin " + x.IPAM.Type, Details: err.Error()}
	}
	addrs := addrsOf(res)
	if len(addrs) == 0 {
		return nil, types.DNS{}, &wire.Error{Code: types.ErrInternal, Message: fmt.Sprintf("IPAM plugin %s assigned no address", x.IPAM.Type)}
	}
	return addrs, res.DNS, nil
}

// previous returns the addresses of the result of ADD, which CHECK compares.
func previous(x *conf) ([]netip.Addr, error) {
	bad := func(err error) error {
		return &wire.Error{Code: types.ErrInvalidNetworkConfig, Message: "prevResult", Details: err.Error()}
	}
	if err := version.ParsePrevResult(&x.NetConf); err != nil {
		return nil, bad(err)
	}
	if x.PrevResult == nil {
		return nil, &wire.Error{Code: types.ErrInvalidNetworkConfig, Message: "prevResult is missing", Details: "CHECK compares it with what is there"}
	}
	res, err := current.NewResultFromResult(x.PrevResult)
	if err != nil {
		return nil, bad(err)
	}
	return addrsOf(res), nil
}

func addrsOf(r *current.Result) (addrs []netip.Addr) {
	for _, ip := range r.IPs {
		if a, ok := netip.AddrFromSlice(ip.Address.IP); ok {
			addrs = append(addrs, a.Unmap())
		}
	}
	return addrs
}

var errOwnNamespace = &wire.Error{Code: types.ErrInvalidNetNS, Message: "plugin's netns and netns from CNI_NETNS should not be the same"}

// inAgentsNamespace reports whether the pod would be the node itself.
func inAgentsNamespace(c *wire.Call) bool {
	if o := c.NetnsOverride; o == "1" || strings.EqualFold(o, "true") {
		return false
	}
	same, err := ns.CheckNetNS(c.Netns)
	return same && err == nil
}

// render writes the result. The interface that addresses belong to is the pod's,
// the second one: portmap and others look there.
func render(a *Added, c *wire.Call, dns types.DNS, inVersion string) ([]byte, error) {
	r := &current.Result{
		CNIVersion: current.ImplementedSpecVersion,
		Interfaces: []*current.Interface{
			{Name: a.HostInterface, Mac: a.HostMAC, Mtu: a.MTU},
			{Name: c.IfName, Mac: a.PodMAC, Mtu: a.MTU, Sandbox: c.Netns},
		},
		DNS: dns,
	}
	for _, addr := range a.Addrs {
		gw, all := wire.Gateway4, netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if addr.Is6() {
			gw, all = wire.Gateway6, netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		r.IPs = append(r.IPs, &current.IPConfig{
			Interface: current.Int(1), Address: ipnet(netip.PrefixFrom(addr, addr.BitLen())), Gateway: gw.AsSlice(),
		})
		r.Routes = append(r.Routes, &types.Route{Dst: ipnet(all), GW: gw.AsSlice()})
	}
	out, err := r.GetAsVersion(inVersion)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = out.PrintTo(&b)
	return b.Bytes(), err
}

func ipnet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
