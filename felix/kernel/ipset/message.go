package ipset

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/kernel/nlsock"
	"github.com/koratnet/korat/policy"
	"github.com/koratnet/korat/policy/ir"
)

// The numbers that nl has no names for.
const (
	listHeadersOnly = 1 << 2 // IPSET_FLAG_LIST_HEADER
	exception       = 1 << 2 // IPSET_FLAG_NOMATCH, of a member
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
	r.Attr(nl.IPSET_ATTR_REVISION, []byte{revision(h.kind)})
	r.Attr(nl.IPSET_ATTR_FAMILY, []byte{h.family})
	return r.Nest(nl.IPSET_ATTR_DATA|nlsock.NestedFlag, func() {
		r.BigUint32(nl.IPSET_ATTR_MAXELEM, h.maxElements)
	})
}

// revision returns the oldest revision of a type that has all we use of it: the
// ports of SCTP came with a revision of their own.
func revision(kind string) byte {
	if kind == "hash:ip,port" {
		return 1
	}
	return 0
}

func destruction(name string) *nlsock.Request { return request(nl.IPSET_CMD_DESTROY, 0, name) }

// exchange is IPSET_CMD_SWAP or IPSET_CMD_RENAME.
func exchange(cmd int, name, other string) *nlsock.Request {
	return request(cmd, 0, name).String(nl.IPSET_ATTR_SETNAME2, other)
}

// member is IPSET_CMD_ADD or IPSET_CMD_DEL. Without NLM_F_EXCL both succeed when
// they find it done.
func member(cmd int, name, kind string, m ir.Member) *nlsock.Request {
	r := request(cmd, 0, name)
	return r.Nest(nl.IPSET_ATTR_DATA|nlsock.NestedFlag, func() {
		r.Nest(nl.IPSET_ATTR_IP|nlsock.NestedFlag, func() {
			attr := uint16(nl.IPSET_ATTR_IPADDR_IPV4)
			if m.Prefix.Addr().Is6() {
				attr = nl.IPSET_ATTR_IPADDR_IPV6
			}
			r.Attr(attr|nlsock.NetOrder, m.Prefix.Addr().AsSlice())
		})
		switch kind {
		case "hash:net":
			r.Attr(nl.IPSET_ATTR_CIDR, []byte{byte(m.Prefix.Bits())})
		case "hash:ip,port":
			r.Attr(nl.IPSET_ATTR_PORT|nlsock.NetOrder, binary.BigEndian.AppendUint16(nil, m.Port))
			r.Attr(nl.IPSET_ATTR_PROTO, []byte{byte(m.Protocol)})
		}
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

// readMembers returns the members of a set. It reports false when there are some
// that we never make.
func (s *Sets) readMembers(name string) (all map[ir.Member]struct{}, plain bool, err error) {
	all = map[ir.Member]struct{}{}
	restart := func() { clear(all); plain = true }
	err = s.conn.Dump(request(nl.IPSET_CMD_LIST, 0, name), restart, func(_ uint16, body []byte) error {
		for attr, value := range nlsock.Attrs(body[min(nl.SizeofNfgenmsg, len(body)):]) {
			if attr != nl.IPSET_ATTR_ADT {
				continue
			}
			for _, element := range nlsock.Attrs(value) {
				m, ok := decodeMember(element)
				all[m], plain = struct{}{}, plain && ok
			}
		}
		return nil
	})
	return all, plain, err
}

func decodeMember(element []byte) (ir.Member, bool) {
	var m ir.Member
	var a netip.Addr
	bits := -1
	for attr, value := range nlsock.Attrs(element) {
		switch attr {
		case nl.IPSET_ATTR_IP:
			for _, bytes := range nlsock.Attrs(value) {
				a, _ = netip.AddrFromSlice(bytes)
			}
		case nl.IPSET_ATTR_CIDR:
			bits = int(value[0])
		case nl.IPSET_ATTR_PORT:
			m.Port = binary.BigEndian.Uint16(value)
		case nl.IPSET_ATTR_PROTO:
			m.Protocol = policy.Protocol(value[0])
		case nl.IPSET_ATTR_CADT_FLAGS:
			if binary.BigEndian.Uint32(value)&exception != 0 {
				return m, false
			}
		}
	}
	if bits < 0 {
		bits = a.BitLen()
	}
	m.Prefix = netip.PrefixFrom(a, bits)
	return m, m.Prefix.IsValid()
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
