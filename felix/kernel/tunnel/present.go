package tunnel

import (
	"errors"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/owned"
)

// Present returns the names of our interfaces in the network namespace of the
// calling thread.
func Present() ([]string, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer handle.Close()
	var names []string
	for _, kind := range desired.TunnelKinds {
		link, err := owned.Find(handle, kind.Device())
		if errors.Is(err, owned.ErrForeign) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if link != nil {
			names = append(names, kind.Device())
		}
	}
	return names, nil
}
