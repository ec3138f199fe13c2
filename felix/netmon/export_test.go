package netmon

import (
	"net"

	"github.com/vishvananda/netlink"
)

// Break makes every question about a route end with err.
func (r *Reaches) Break(err error) {
	r.get = func(net.IP) ([]netlink.Route, error) { return nil, err }
}
