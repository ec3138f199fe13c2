package main

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
)

// own is the type of IPAM that the agent does itself, as an empty one.
const own = "korat"

// delegates reports whether another plugin assigns addresses: host-local with the
// node's podCIDR, static, dhcp, whatever the node has. It is called as the CNI
// specification says, with our configuration.
func (c *conf) delegates() bool { return c.IPAM.Type != "" && c.IPAM.Type != own }

// borrow has the other plugin assign addresses.
func (c *conf) borrow(ctx context.Context, args *skel.CmdArgs) ([]netip.Addr, types.DNS, error) {
	r, err := invoke.DelegateAdd(ctx, c.IPAM.Type, args.StdinData, nil)
	if err != nil {
		return nil, types.DNS{}, err
	}
	res, err := current.NewResultFromResult(r)
	if err != nil {
		return nil, types.DNS{}, types.NewError(types.ErrDecodingFailure, "result of IPAM plugin "+c.IPAM.Type, err.Error())
	}
	var addrs []netip.Addr
	for _, ip := range res.IPs {
		if a, ok := netip.AddrFromSlice(ip.Address.IP); ok {
			addrs = append(addrs, a.Unmap())
		}
	}
	if len(addrs) == 0 {
		return nil, types.DNS{}, types.NewError(types.ErrInternal, fmt.Sprintf("IPAM plugin %s assigned no address", c.IPAM.Type), "")
	}
	return addrs, res.DNS, nil
}

// giveBack has the other plugin release what it assigned.
func (c *conf) giveBack(ctx context.Context, args *skel.CmdArgs) error {
	return invoke.DelegateDel(ctx, c.IPAM.Type, args.StdinData, nil)
}
