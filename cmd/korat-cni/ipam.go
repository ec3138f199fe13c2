package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"
)

// own is the type of IPAM that the agent does itself, as an empty one.
const own = "korat"

// delegates reports whether another plugin assigns addresses: host-local with the
// node's podCIDR, static, dhcp, whatever the node has. It is called as the CNI
// specification says, with our configuration.
func (c *conf) delegates() bool { return c.IPAM.Type != "" && c.IPAM.Type != own }

// borrow has the other plugin assign addresses.
func (c *conf) borrow(args *skel.CmdArgs) ([]netip.Addr, types.DNS, error) {
	out, err := c.delegate("ADD", args)
	if err != nil {
		return nil, types.DNS{}, err
	}
	res, err := c.read(out)
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

// read reads a result, which is of our configuration's version if it does not say.
func (c *conf) read(out []byte) (*current.Result, error) {
	var said struct {
		CNIVersion string `json:"cniVersion"`
	}
	if err := json.Unmarshal(out, &said); err != nil {
		return nil, err
	}
	if said.CNIVersion == "" {
		said.CNIVersion = c.CNIVersion
	}
	r, err := create.Create(said.CNIVersion, out)
	if err != nil {
		return nil, err
	}
	return current.NewResultFromResult(r)
}

// giveBack has the other plugin release what it assigned.
func (c *conf) giveBack(args *skel.CmdArgs) error {
	_, err := c.delegate("DEL", args)
	return err
}

// delegate runs the other plugin and returns what it prints. (The library that
// does the same links an HTTP stack: starting this program then takes half as long
// again, for every pod.)
func (c *conf) delegate(verb string, args *skel.CmdArgs) ([]byte, error) {
	path, err := c.find()
	if err != nil {
		return nil, err
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(path)
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+verb) // the last of a name counts
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(args.StdinData), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		var said types.Error
		if json.Unmarshal(stdout.Bytes(), &said) == nil && said.Msg != "" {
			return nil, &said
		}
		return nil, types.NewError(types.ErrInternal, fmt.Sprintf("IPAM plugin %s: %v", c.IPAM.Type, err), stderr.String())
	}
	return stdout.Bytes(), nil
}

// find returns the path of the other plugin.
func (c *conf) find() (string, error) {
	if filepath.Base(c.IPAM.Type) != c.IPAM.Type {
		return "", types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("ipam.type is %q, expected the name of a plugin", c.IPAM.Type), "")
	}
	dirs := os.Getenv("CNI_PATH")
	for _, dir := range filepath.SplitList(dirs) {
		path := filepath.Join(dir, c.IPAM.Type)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, nil
		} else if err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", types.NewError(types.ErrIOFailure, "IPAM plugin "+c.IPAM.Type, err.Error())
		}
	}
	return "", types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("IPAM plugin %s is not in CNI_PATH %s", c.IPAM.Type, dirs), "")
}
