package pod

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/cniserver/wire"
	"github.com/koratnet/korat/felix/kernel/nlsock"
)

// request is a message to the kernel and what it is about, for errors.
type request struct {
	*nlsock.Request
	about string
}

// carryOut makes requests in a row, in one message: attaching a pod is some ten of
// them. The error is that of the first that failed; the others were tried.
func carryOut(conn *nlsock.Conn, all []request) error {
	messages := make([]*nlsock.Request, len(all))
	for i, r := range all {
		messages[i] = r.Request
	}
	var first error
	err := conn.Batch(messages, func(i int, err error) {
		if err != nil && first == nil {
			first = fmt.Errorf("%s: %w", all[i].about, err)
		}
	})
	return errors.Join(err, first)
}

// vethRequest makes a pair of which the other end is in the namespace of fd. One
// queue each: the kernel would make one for every processor the machine can have.
func vethRequest(s Spec, fd int) request {
	r := nlsock.NewRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, make([]byte, unix.SizeofIfInfomsg))
	end := func(name string, mac []byte) {
		r.String(unix.IFLA_IFNAME, name).Uint32(unix.IFLA_MTU, uint32(s.MTU))
		r.Uint32(unix.IFLA_NUM_TX_QUEUES, 1).Uint32(unix.IFLA_NUM_RX_QUEUES, 1)
		if mac != nil {
			r.Attr(unix.IFLA_ADDRESS, mac)
		}
	}
	end(s.HostInterface, hostMAC)
	r.Nest(unix.IFLA_LINKINFO, func() {
		r.String(unix.IFLA_INFO_KIND, "veth")
		r.Nest(unix.IFLA_INFO_DATA, func() {
			const peer = 1 // VETH_INFO_PEER: the header of a link, then its attributes
			r.Nest(peer, func() {
				r.Raw(make([]byte, unix.SizeofIfInfomsg))
				end(s.Interface, s.MAC)
				r.Uint32(unix.IFLA_NET_NS_FD, uint32(fd))
			})
		})
	})
	return request{r, s.HostInterface}
}

var hostMAC, _ = net.ParseMAC(wire.HostMAC)

// lookUp returns the index and the hardware address of an interface.
func lookUp(conn *nlsock.Conn, name string) (index uint32, mac net.HardwareAddr, err error) {
	r := nlsock.NewRequest(unix.RTM_GETLINK, 0, make([]byte, unix.SizeofIfInfomsg)).String(unix.IFLA_IFNAME, name)
	err = conn.Get(r, func(body []byte) error {
		if len(body) < unix.SizeofIfInfomsg {
			return errors.New("short answer")
		}
		index = binary.NativeEndian.Uint32(body[4:])
		for kind, value := range nlsock.Attrs(body[unix.SizeofIfInfomsg:]) {
			if kind == unix.IFLA_ADDRESS {
				mac = net.HardwareAddr(append([]byte(nil), value...))
			}
		}
		return nil
	})
	if err != nil {
		return 0, nil, fmt.Errorf("%s: %w", name, err)
	}
	return index, mac, nil
}

// up brings an interface up.
func up(index uint32, name string) request {
	h := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(h[4:], index)
	binary.NativeEndian.PutUint32(h[8:], unix.IFF_UP)  // flags
	binary.NativeEndian.PutUint32(h[12:], unix.IFF_UP) // of which these change
	return request{nlsock.NewRequest(unix.RTM_NEWLINK, 0, h), name + " up"}
}

const replace = unix.NLM_F_CREATE | unix.NLM_F_REPLACE

// wayOut gives the pod address a and the way out through the gateway of its family.
func wayOut(index uint32, a netip.Addr) []request {
	gw, none := wire.Gateway4, netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if a.Is6() {
		gw, none = wire.Gateway6, netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	all := []request{address(index, a), neighbour(index, gw, hostMAC)}
	if a.Is4() {
		onLink := netip.PrefixFrom(gw, gw.BitLen())
		all = append(all, request{route(index, onLink, unix.RT_SCOPE_LINK), fmt.Sprintf("route to %s", gw)})
	}
	out := route(index, none, unix.RT_SCOPE_UNIVERSE).Attr(unix.RTA_GATEWAY, gw.AsSlice())
	return append(all, request{out, fmt.Sprintf("default route via %s", gw)})
}

func address(index uint32, a netip.Addr) request {
	h := []byte{nlsock.Family(a.Is6()), byte(a.BitLen()), unix.IFA_F_NODAD, unix.RT_SCOPE_UNIVERSE, 0, 0, 0, 0}
	binary.NativeEndian.PutUint32(h[4:], index)
	r := nlsock.NewRequest(unix.RTM_NEWADDR, replace, h)
	r.Attr(unix.IFA_LOCAL, a.AsSlice()).Attr(unix.IFA_ADDRESS, a.AsSlice())
	return request{r, fmt.Sprintf("address %s", a)}
}

// neighbour says who has ip, so that the first packet does not wait for an answer.
func neighbour(index uint32, ip netip.Addr, mac net.HardwareAddr) request {
	h := make([]byte, unix.SizeofNdMsg)
	h[0] = nlsock.Family(ip.Is6())
	binary.NativeEndian.PutUint32(h[4:], index)
	binary.NativeEndian.PutUint16(h[8:], unix.NUD_PERMANENT)
	r := nlsock.NewRequest(unix.RTM_NEWNEIGH, replace, h)
	r.Attr(unix.NDA_DST, ip.AsSlice()).Attr(unix.NDA_LLADDR, mac)
	return request{r, fmt.Sprintf("neighbour %s", ip)}
}

func route(index uint32, to netip.Prefix, scope byte) *nlsock.Request {
	h := make([]byte, unix.SizeofRtMsg)
	h[0], h[1] = nlsock.Family(to.Addr().Is6()), byte(to.Bits())
	h[4], h[5], h[6], h[7] = unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, scope, unix.RTN_UNICAST
	r := nlsock.NewRequest(unix.RTM_NEWROUTE, replace, h)
	if to.Bits() > 0 {
		r.Attr(unix.RTA_DST, to.Addr().AsSlice())
	}
	return r.Uint32(unix.RTA_OIF, index)
}
