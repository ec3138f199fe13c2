package cluster

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
)

// PodNetns returns the file, on this machine, of the network namespace of the
// node's pod that has the address.
func (c *Cluster) PodNetns(ctx context.Context, node string, addr netip.Addr) (string, error) {
	m := c.Machine(node)
	all, err := os.ReadDir(m.Path("/run/netns"))
	if err != nil {
		return "", err
	}
	for _, ns := range all {
		path := "/run/netns/" + ns.Name()
		var out bytes.Buffer
		cmd := exec.CommandContext(ctx, "ip", "-o", "addr")
		cmd.Stdout = &out
		// One that goes away meanwhile is not it.
		if m.RunIn(cmd, path) == nil && bytes.Contains(out.Bytes(), []byte(" "+addr.String()+"/")) {
			return m.Path(path), nil
		}
	}
	return "", fmt.Errorf("no pod of %s has the address %s", node, addr)
}
