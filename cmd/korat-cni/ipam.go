package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/koratnet/korat/felix/cniserver/wire"
)

// own is the type of IPAM that the agent does itself, as an empty one.
const own = "korat"

// delegates reports whether another plugin assigns addresses: host-local with the
// node's podCIDR, static, dhcp, whatever the node has. It is called as the CNI
// specification says, with our configuration.
func (c *conf) delegates() bool { return c.IPAM.Type != "" && c.IPAM.Type != own }

// withDelegate is ask with another plugin for addresses: before ours in ADD, and
// after it in everything else.
func (c *conf) withDelegate(call *wire.Call) (printed []byte, failed bool) {
	var err error
	if call.Command == wire.Add {
		if call.Assigned, err = c.delegate("ADD", call); err != nil {
			return tell(err)
		}
	}
	printed, failed = c.ask(call)
	switch {
	case call.Command == wire.Add && failed: // what fails here the runtime's DEL repeats
		_, _ = c.delegate("DEL", call)
	case call.Command != wire.Add && !failed:
		if _, err := c.delegate(string(call.Command), call); err != nil {
			return tell(err)
		}
	}
	return printed, failed
}

// delegate runs the other plugin and returns what it prints.
func (c *conf) delegate(verb string, call *wire.Call) ([]byte, error) {
	path, err := c.find(call.Path)
	if err != nil {
		return nil, err
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(path)
	cmd.Env = append(os.Environ(), wire.EnvCommand+"="+verb) // the last of a name counts
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(call.Config), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		var said wire.Error
		if json.Unmarshal(stdout.Bytes(), &said) == nil && said.Message != "" {
			return nil, &said
		}
		return nil, &wire.Error{Code: codeInternal, Message: "IPAM plugin " + c.IPAM.Type + ": " + err.Error(), Details: stderr.String()}
	}
	return stdout.Bytes(), nil
}

// find returns the path of the other plugin.
func (c *conf) find(dirs string) (string, error) {
	if filepath.Base(c.IPAM.Type) != c.IPAM.Type {
		return "", &wire.Error{Code: codeConfig, Message: "ipam.type is " + c.IPAM.Type + ", expected the name of a plugin"}
	}
	for _, dir := range filepath.SplitList(dirs) {
		path := filepath.Join(dir, c.IPAM.Type)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, nil
		} else if err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", &wire.Error{Code: codeIO, Message: "IPAM plugin " + c.IPAM.Type, Details: err.Error()}
		}
	}
	return "", &wire.Error{Code: codeConfig, Message: "IPAM plugin " + c.IPAM.Type + " is not in CNI_PATH " + dirs}
}
