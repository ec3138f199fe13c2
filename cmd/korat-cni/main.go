// Command korat-cni is the CNI plugin. It holds no credentials and decides
// nothing: it hands each request to the agent on this node and translates the
// answer into the result format that the runtime asked for.
//
// While no agent runs, ADD says "try again later" (CNI code 11), and DEL leaves
// a tombstone that the agent carries out at its start, and succeeds: a pod can
// always be taken away.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	cniversion "github.com/containernetworking/cni/pkg/version"

	"github.com/koratnet/korat/felix/cniserver/wire"
)

// version is set by the linker.
var version = "unknown"

// conf is the plugin's part of a conflist.
type conf struct {
	types.NetConf
	// Socket is the path of the agent's socket; wire.DefaultSocket if empty.
	Socket string `json:"socket"`
	// IPv4Pools and IPv6Pools name the pools of pods that no annotation tells.
	IPv4Pools []string `json:"ipv4Pools"`
	IPv6Pools []string `json:"ipv6Pools"`
}

func main() {
	skel.PluginMainFuncs(skel.CNIFuncs{
		Add: add, Del: del, Check: check, Status: status, GC: gc,
	}, cniversion.PluginSupports("0.3.1", "0.4.0", "1.0.0", "1.1.0"), "Korat CNI plugin "+version)
}

func add(args *skel.CmdArgs) error {
	c, req, err := parse(wire.Add, args)
	if err != nil {
		return err
	}
	var dns types.DNS
	if c.delegates() {
		if req.Given, dns, err = c.borrow(args); err != nil {
			return err
		}
	}
	reply, err := ask(c, req)
	if err == nil && reply.Added == nil {
		err = types.NewError(types.ErrInternal, "the agent answered without a result", "")
	}
	if err != nil {
		if c.delegates() { // what fails here the runtime's DEL repeats
			_ = c.giveBack(args)
		}
		return later(err)
	}
	r := result(reply.Added, args)
	r.DNS = dns
	return types.PrintResult(r, c.CNIVersion)
}

func del(args *skel.CmdArgs) error {
	c, req, err := parse(wire.Del, args)
	if err != nil {
		return err
	}
	_, err = ask(c, req)
	if errors.Is(err, errNoAgent) {
		err = bury(c, req)
	}
	if err == nil && c.delegates() {
		err = c.giveBack(args)
	}
	return err
}

func check(args *skel.CmdArgs) error {
	c, req, err := parse(wire.Check, args)
	if err != nil {
		return err
	}
	if err := cniversion.ParsePrevResult(&c.NetConf); err != nil {
		return types.NewError(types.ErrInvalidNetworkConfig, "prevResult", err.Error())
	}
	if c.PrevResult == nil {
		return types.NewError(types.ErrInvalidNetworkConfig, "prevResult is missing", "CHECK compares it with what is there")
	}
	prev, err := current.NewResultFromResult(c.PrevResult)
	if err != nil {
		return types.NewError(types.ErrInvalidNetworkConfig, "prevResult", err.Error())
	}
	for _, ip := range prev.IPs {
		if a, ok := netip.AddrFromSlice(ip.Address.IP); ok {
			req.Addrs = append(req.Addrs, a.Unmap())
		}
	}
	if _, err = ask(c, req); err == nil && c.delegates() {
		_, err = c.delegate("CHECK", args)
	}
	return later(err)
}

func status(args *skel.CmdArgs) error {
	c, _, err := parse(wire.Status, args)
	if err != nil {
		return err
	}
	_, err = ask(c, wire.Request{Command: wire.Status})
	if errors.Is(err, errNoAgent) {
		return types.NewError(types.ErrPluginNotAvailable, "the Korat agent does not run on this node", err.Error())
	}
	if err == nil && c.delegates() {
		_, err = c.delegate("STATUS", args)
	}
	return err
}

func gc(args *skel.CmdArgs) error {
	c, _, err := parse(wire.GC, args)
	if err != nil {
		return err
	}
	req := wire.Request{Command: wire.GC, Network: c.Name}
	for _, v := range c.ValidAttachments {
		req.Valid = append(req.Valid, wire.Attachment{ContainerID: v.ContainerID, IfName: v.IfName})
	}
	if _, err = ask(c, req); err == nil && c.delegates() {
		_, err = c.delegate("GC", args)
	}
	return later(err)
}

// parse reads the configuration and the request's subject.
func parse(cmd wire.Command, args *skel.CmdArgs) (*conf, wire.Request, error) {
	c := &conf{Socket: wire.DefaultSocket}
	if err := json.Unmarshal(args.StdinData, c); err != nil {
		return nil, wire.Request{}, types.NewError(types.ErrDecodingFailure, "network configuration", err.Error())
	}
	if !filepath.IsAbs(c.Socket) {
		return nil, wire.Request{}, types.NewError(types.ErrInvalidNetworkConfig,
			fmt.Sprintf("socket is %q, expected the absolute path of the agent's socket", c.Socket), "")
	}
	req := wire.Request{Command: cmd, Network: c.Name, ContainerID: args.ContainerID, Netns: args.Netns, IfName: args.IfName, Pod: args.ContainerID}
	req.Pools4, req.Pools6 = c.IPv4Pools, c.IPv6Pools
	for pair := range strings.SplitSeq(args.Args, ";") {
		switch k, v, _ := strings.Cut(pair, "="); k {
		case "K8S_POD_NAMESPACE":
			req.Namespace = v
		case "K8S_POD_NAME":
			req.Pod = v
		case "K8S_POD_UID":
			req.PodUID = v
		}
	}
	return c, req, nil
}

// errNoAgent: nobody answers at the socket.
var errNoAgent = errors.New("no agent")

// ask sends req to the agent and returns its reply, or its error.
func ask(c *conf, req wire.Request) (wire.Reply, error) {
	var reply wire.Reply
	conn, err := net.Dial("unix", c.Socket)
	if err != nil {
		return reply, fmt.Errorf("%w at %s: %w", errNoAgent, c.Socket, err)
	}
	defer conn.Close()
	if err := json.NewEncoder(conn).Encode(req); err != nil {
		return reply, fmt.Errorf("%w: it went away: %w", errNoAgent, err)
	}
	if err := json.NewDecoder(conn).Decode(&reply); err != nil {
		return reply, fmt.Errorf("%w: it went away before its answer: %w", errNoAgent, err)
	}
	if e := reply.Error; e != nil {
		return reply, types.NewError(e.Code, e.Message, e.Details)
	}
	return reply, nil
}

// later makes the absence of the agent the CNI error that has a runtime repeat.
func later(err error) error {
	if errors.Is(err, errNoAgent) {
		return types.NewError(types.ErrTryAgainLater, "the Korat agent does not answer on this node; is it running?", err.Error())
	}
	return err
}

// bury leaves req for the agent's next start. The name is free of separators:
// container IDs and interface names have none.
func bury(c *conf, req wire.Request) error {
	dir := filepath.Join(filepath.Dir(c.Socket), wire.TombstoneDir)
	data, err := json.Marshal(req)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	name := filepath.Join(dir, filepath.Base(req.ContainerID)+"."+filepath.Base(req.IfName))
	if err == nil {
		err = os.WriteFile(name+"~", data, 0o600)
	}
	if err == nil {
		err = os.Rename(name+"~", name)
	}
	if err != nil {
		return types.NewError(types.ErrIOFailure, "no agent runs, and the request cannot be left for it", err.Error())
	}
	return nil
}

// result translates the agent's answer. The interface that addresses belong to
// is the pod's, the second one: portmap and others look there.
func result(a *wire.Added, args *skel.CmdArgs) *current.Result {
	r := &current.Result{
		CNIVersion: current.ImplementedSpecVersion,
		Interfaces: []*current.Interface{
			{Name: a.HostInterface, Mac: a.HostMAC, Mtu: a.MTU},
			{Name: args.IfName, Mac: a.PodMAC, Mtu: a.MTU, Sandbox: args.Netns},
		},
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
	return r
}

func ipnet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
