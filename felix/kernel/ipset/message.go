package ipset

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/kernel/nlsock"
)

// The numbers that nl has no names for.
const (
	listHeadersOnly = 1 << 2 // IPSET_FLAG_LIST_HEADER
	errHashFull     = unix.Errno(nl.IPSET_ERR_TYPE_SPECIFIC)
	errBusy         = unix.Errno(nl.IPSET_ERR_BUSY)
	errReferenced   = unix.Errno(nl.IPSET_ERR_REFERENCED)
	errMismatch     = unix.Errno(nl.IPSET_ERR_TYPE_MISMATCH)
)

// request begins a message about the set of this name; no name is all sets.
func request(cmd int, flags uint16, name string) *nlsock.Request {
	r := nlsock.NewRequest(unix.NFNL_SUBSYS_IPSET<<8|uint16(cmd), flags, []byte{unix.AF_INET, nl.NFNETLINK_V0, 0, 0})
	r.Attr(nl.IPSET_ATTR_PROTOCOL, []byte{nl.IPSET_PROTOCOL})
	if name != "" {
		r.String(nl.IPSET_ATTR_SETNAME, name)
	}
	return r
}

func creation(name string, h *header) *nlsock.Request {
	r := request(nl.IPSET_CMD_CREATE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, name)
	r.String(nl.IPSET_ATTR_TYPENAME, h.kind)
	r.Attr(nl.IPSET_ATTR_REVISION, []byte{0})
	r.Attr(nl.IPSET_ATTR_FAMILY, []byte{h.family})
	return r.Nest(nl.IPSET_ATTR_DATA|nlsock.NestedFlag, func() {
		r.BigUint32(nl.IPSET_ATTR_MAXELEM, h.maxElements)
	})
}

func destruction(name string) *nlsock.Request { return request(nl.IPSET_CMD_DESTROY, 0, name) }

// exchange is IPSET_CMD_SWAP or IPSET_CMD_RENAME.
func exchange(cmd int, name, other string) *nlsock.Request {
	return request(cmd, 0, name).String(nl.IPSET_ATTR_SETNAME2, other)
}

// member is IPSET_CMD_ADD or IPSET_CMD_DEL. Without NLM_F_EXCL both succeed when
// they find it done.
func member(cmd int, name string, a netip.Addr) *nlsock.Request {
	r := request(cmd, 0, name)
	return r.Nest(nl.IPSET_ATTR_DATA|nlsock.NestedFlag, func() {
		r.Nest(nl.IPSET_ATTR_IP|nlsock.NestedFlag, func() {
			kind := uint16(nl.IPSET_ATTR_IPADDR_IPV4)
			if a.Is6() {
				kind = nl.IPSET_ATTR_IPADDR_IPV6
			}
			r.Attr(kind|nlsock.NetOrder, a.AsSlice())
		})
	})
}

// list returns the headers of our sets.
func (s *Sets) list() (map[string]*header, error) {
	all := map[string]*header{}
	r := request(nl.IPSET_CMD_LIST, 0, "").BigUint32(nl.IPSET_ATTR_FLAGS, listHeadersOnly)
	err := s.conn.Dump(r, func() { clear(all) }, func(_ uint16, body []byte) error {
		if name, h := decodeHeader(body); ours(name) {
			all[name] = h
		}
		return nil
	})
	return all, err
}

func decodeHeader(body []byte) (name string, h *header) {
	h = &header{}
	for attr, value := range nlsock.Attrs(body[min(nl.SizeofNfgenmsg, len(body)):]) {
		switch attr {
		case nl.IPSET_ATTR_SETNAME:
			name = nlsock.Text(value)
		case nl.IPSET_ATTR_TYPENAME:
			h.kind = nlsock.Text(value)
		case nl.IPSET_ATTR_FAMILY:
			h.family = value[0]
		case nl.IPSET_ATTR_DATA:
			for attr, value := range nlsock.Attrs(value) {
				if attr == nl.IPSET_ATTR_MAXELEM {
					h.maxElements = binary.BigEndian.Uint32(value)
				}
			}
		}
	}
	return name, h
}

// readMembers returns the single addresses in a set. It may be of another type
// than wanted; what is no address is left out then.
func (s *Sets) readMembers(name string) (map[netip.Addr]struct{}, error) {
	all := map[netip.Addr]struct{}{}
	err := s.conn.Dump(request(nl.IPSET_CMD_LIST, 0, name), func() { clear(all) }, func(_ uint16, body []byte) error {
		for attr, value := range nlsock.Attrs(body[min(nl.SizeofNfgenmsg, len(body)):]) {
			if attr != nl.IPSET_ATTR_ADT {
				continue
			}
			for _, element := range nlsock.Attrs(value) {
				if a, ok := decodeAddr(element); ok {
					all[a] = struct{}{}
				}
			}
		}
		return nil
	})
	return all, err
}

func decodeAddr(element []byte) (netip.Addr, bool) {
	for attr, value := range nlsock.Attrs(element) {
		if attr != nl.IPSET_ATTR_IP {
			continue
		}
		for _, bytes := range nlsock.Attrs(value) {
			return netip.AddrFromSlice(bytes)
		}
	}
	return netip.Addr{}, false
}

// inWords explains the errors that ipset has numbers of its own for.
func inWords(err error) error {
	switch {
	case errors.Is(err, errHashFull):
		return fmt.Errorf("the set is full: %w", err)
	case errors.Is(err, errBusy), errors.Is(err, errReferenced):
		return fmt.Errorf("the set is in use: %w", err)
	case errors.Is(err, errMismatch):
		return fmt.Errorf("the set is of another type: %w", err)
	}
	return err
}
