package tunnel

import (
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/desired"
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
		link, err := handle.LinkByName(kind.Device())
		if missing(err) || err == nil && link.Attrs().Alias != Alias {
			continue
		}
		if err != nil {
			return nil, err
		}
		names = append(names, kind.Device())
	}
	return names, nil
}
