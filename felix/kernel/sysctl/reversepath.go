package sysctl

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/koratnet/korat/felix/desired"
)

// StrictReversePath returns the interfaces, but for those of pods and tunnels, that drop
// packets of IPv4 whose answers would leave by another one, ascending.
func StrictReversePath(root string) (names []string, err error) {
	const strict = "1"
	dir := filepath.Join(root, "net/ipv4/conf")
	all, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("kernel parameters of interfaces: %w", err)
	}
	filter := func(iface string) (string, error) { return read(filepath.Join(dir, iface, "rp_filter")) }
	ofAll, err := filter("all") // the larger of both counts
	if err != nil {
		return nil, err
	}
	for _, e := range all {
		name := e.Name()
		_, tunnel := desired.TunnelOfDevice(name)
		if tunnel || name == "all" || name == "default" || name == "lo" || strings.HasPrefix(name, desired.InterfacePrefix) {
			continue
		}
		own, err := filter(name)
		switch {
		case errors.Is(err, fs.ErrNotExist): // gone meanwhile
		case err != nil:
			return nil, err
		case max(own, ofAll) == strict:
			names = append(names, name)
		}
	}
	return names, nil
}
