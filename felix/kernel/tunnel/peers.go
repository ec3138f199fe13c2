package tunnel

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/delta"
	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/nlsock"
)

// key is what the kernel tells entries of one interface apart by: neighbours by
// the address of the next hop, forwarding entries by mac.
type key struct {
	addr netip.Addr  // the zero Addr: a forwarding entry
	mac  desired.MAC // of forwarding entries
}

// value is what an entry says.
type value struct {
	mac      desired.MAC // of a neighbour
	underlay netip.Addr  // of a forwarding entry
	foreign  bool        // the kernel has it in a form that we do not write, or may forget it
}

func (k key) forwarding() bool { return !k.addr.IsValid() }

func (k key) String() string {
	if k.forwarding() {
		return fmt.Sprintf("forwarding entry %s", k.mac)
	}
	return fmt.Sprintf("neighbour %s", k.addr)
}

// pushPeers sends what is pending of interfaces that are there.
func (r *Reconciler) pushPeers() error {
	var errs []error
	for kind, index := range r.index {
		if err := r.push(kind, index); err != nil {
			errs = append(errs, fmt.Errorf("interface %s: %w", kind, err))
		}
	}
	return errors.Join(errs...)
}

func (r *Reconciler) push(kind desired.TunnelKind, index int) error {
	peers := r.peers[kind]
	var keys []key
	var requests []*nlsock.Request
	for k, c := range peers.Pending() {
		keys, requests = append(keys, k), append(requests, entry(kind, k, c, index))
	}
	if len(requests) == 0 {
		return nil
	}
	failed := 0
	var errs []error
	err := r.conn.Batch(requests, func(i int, err error) {
		_, wanted := peers.Wanted(keys[i])
		absent := !wanted && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH))
		if err == nil || absent {
			peers.Done(keys[i])
			return
		}
		if failed++; failed <= maxErrors {
			errs = append(errs, fmt.Errorf("%s: %w", keys[i], err))
		}
	})
	if failed > maxErrors {
		errs = append(errs, fmt.Errorf("and %d entries more", failed-maxErrors))
	}
	if err != nil || failed > 0 { // the interface may have gone; what was done may be unknown
		r.unsure[kind], r.unread[kind] = struct{}{}, struct{}{}
	}
	return errors.Join(append(errs, err)...)
}

// entry makes the message that carries out c.
func entry(kind desired.TunnelKind, k key, c delta.Change[value], index int) *nlsock.Request {
	message, flags := uint16(unix.RTM_NEWNEIGH), uint16(unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
	if c.Op == delta.Remove {
		message, flags = unix.RTM_DELNEIGH, 0
	}
	h := unix.NdMsg{Family: nlsock.Family(kind.Is6()), Ifindex: int32(index), State: unix.NUD_PERMANENT}
	if k.forwarding() {
		h.Family, h.Flags = unix.AF_BRIDGE, unix.NTF_SELF
		m := nlsock.NewRequest(message, flags, nlsock.Bytes(&h)).Attr(unix.NDA_LLADDR, k.mac[:])
		if c.Op != delta.Remove {
			m.Attr(unix.NDA_DST, c.Want.underlay.AsSlice())
		}
		return m
	}
	m := nlsock.NewRequest(message, flags, nlsock.Bytes(&h)).Attr(unix.NDA_DST, k.addr.AsSlice())
	if c.Op != delta.Remove {
		m.Attr(unix.NDA_LLADDR, c.Want.mac[:])
	}
	return m
}

// readPeers reads the entries of one interface; one that is not there has none.
func (r *Reconciler) readPeers(kind desired.TunnelKind) error {
	found := map[key]value{}
	if index, up := r.index[kind]; up && kind.Encapsulation() == desired.VXLAN {
		if err := r.dump(nlsock.Family(kind.Is6()), index, found); err != nil {
			return err
		}
		if err := r.dump(unix.AF_BRIDGE, index, found); err != nil {
			return err
		}
	}
	r.peers[kind].Resync(maps.All(found))
	return nil
}

// dump reads the entries of one table. Both kinds of dump are told the interface,
// each in its own way.
func (r *Reconciler) dump(family uint8, index int, into map[key]value) error {
	h := unix.NdMsg{Family: family}
	if family == unix.AF_BRIDGE {
		h.Ifindex = int32(index)
	}
	request := nlsock.NewRequest(unix.RTM_GETNEIGH, 0, nlsock.Bytes(&h))
	if family != unix.AF_BRIDGE {
		request.Uint32(unix.NDA_IFINDEX, uint32(index))
	}
	found := map[key]value{}
	err := r.conn.Dump(request, func() { clear(found) }, func(message uint16, body []byte) error {
		if message == unix.RTM_NEWNEIGH {
			if k, v, ok := decode(family, index, body); ok {
				found[k] = v
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	maps.Copy(into, found)
	return nil
}

// decode reads an entry. Those that the kernel makes by itself, of multicast and
// of no address at all, are not told.
func decode(family uint8, index int, body []byte) (k key, v value, ok bool) {
	if len(body) < unix.SizeofNdMsg {
		return k, v, false
	}
	h := (*unix.NdMsg)(unsafe.Pointer(&body[0]))
	if h.Family != family || int(h.Ifindex) != index || h.State&unix.NUD_NOARP != 0 && family != unix.AF_BRIDGE {
		return k, v, false
	}
	var dst netip.Addr
	var mac desired.MAC
	for attr, data := range nlsock.Attrs(body[unix.SizeofNdMsg:]) {
		switch attr {
		case unix.NDA_DST:
			dst, _ = netip.AddrFromSlice(data)
		case unix.NDA_LLADDR:
			copy(mac[:], data)
		}
	}
	permanent := h.State&unix.NUD_PERMANENT != 0
	if family == unix.AF_BRIDGE {
		return key{mac: mac}, value{underlay: dst, foreign: !permanent}, dst.IsValid()
	}
	return key{addr: dst}, value{mac: mac, foreign: !permanent}, dst.IsValid() && !dst.IsMulticast()
}
