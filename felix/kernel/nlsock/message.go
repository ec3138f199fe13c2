package nlsock

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"iter"

	"golang.org/x/sys/unix"
)

// attrType takes the flags (nested, network byte order) off an attribute's type.
const attrType = 0x3fff

// NestedFlag marks attributes that hold attributes, NetOrder those whose number
// is in network byte order.
const (
	NestedFlag = unix.NLA_F_NESTED
	NetOrder   = unix.NLA_F_NET_BYTEORDER
)

// Request is a message to the kernel under construction.
type Request struct {
	flags uint16
	b     []byte
}

// NewRequest begins a message of a kind (RTM_NEWROUTE …) with flags (NLM_F_…,
// those of the exchange itself are added by Conn) and a fixed header.
func NewRequest(kind, flags uint16, header []byte) *Request {
	r := &Request{flags: flags, b: make([]byte, unix.SizeofNlMsghdr, 128)}
	binary.NativeEndian.PutUint16(r.b[4:], kind)
	r.b = append(r.b, header...)
	r.pad()
	return r
}

// Attr adds an attribute.
func (r *Request) Attr(kind uint16, value []byte) *Request {
	r.b = binary.NativeEndian.AppendUint16(r.b, uint16(unix.SizeofRtAttr+len(value)))
	r.b = binary.NativeEndian.AppendUint16(r.b, kind)
	r.b = append(r.b, value...)
	r.pad()
	return r
}

// Uint32 adds a number in the machine's byte order.
func (r *Request) Uint32(kind uint16, v uint32) *Request {
	return r.Attr(kind, binary.NativeEndian.AppendUint32(nil, v))
}

// BigUint32 adds a number in network byte order, and says so.
func (r *Request) BigUint32(kind uint16, v uint32) *Request {
	return r.Attr(kind|NetOrder, binary.BigEndian.AppendUint32(nil, v))
}

// String adds a text that ends with NUL.
func (r *Request) String(kind uint16, s string) *Request {
	r.b = binary.NativeEndian.AppendUint16(r.b, uint16(unix.SizeofRtAttr+len(s)+1))
	r.b = binary.NativeEndian.AppendUint16(r.b, kind)
	r.b = append(append(r.b, s...), 0)
	r.pad()
	return r
}

// Text adds a text, or bytes held as one, without NUL.
func (r *Request) Text(kind uint16, s string) *Request {
	r.b = binary.NativeEndian.AppendUint16(r.b, uint16(unix.SizeofRtAttr+len(s)))
	r.b = binary.NativeEndian.AppendUint16(r.b, kind)
	r.b = append(r.b, s...)
	r.pad()
	return r
}

// Raw adds attributes that were encoded before.
func (r *Request) Raw(attrs []byte) *Request {
	r.b = append(r.b, attrs...)
	r.pad()
	return r
}

// Nest adds an attribute that holds what fill adds.
func (r *Request) Nest(kind uint16, fill func()) *Request {
	at := len(r.b)
	r.Attr(kind, nil)
	fill()
	binary.NativeEndian.PutUint16(r.b[at:], uint16(len(r.b)-at))
	return r
}

// Struct adds, in the middle of attributes, a structure that begins with its own
// length in 16 bits (struct rtnexthop) and includes what fill adds.
func (r *Request) Struct(fixed []byte, fill func()) *Request {
	at := len(r.b)
	r.b = append(r.b, fixed...)
	r.pad()
	fill()
	binary.NativeEndian.PutUint16(r.b[at:], uint16(len(r.b)-at))
	return r
}

func (r *Request) pad() {
	for len(r.b) != align(len(r.b)) {
		r.b = append(r.b, 0)
	}
}

// Attrs yields the attributes in b: their types without flags, and values. It
// stops at the first broken one.
func Attrs(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofRtAttr {
			size := int(binary.NativeEndian.Uint16(b))
			if size < unix.SizeofRtAttr || size > len(b) {
				return
			}
			if !yield(binary.NativeEndian.Uint16(b[2:])&attrType, b[unix.SizeofRtAttr:size]) {
				return
			}
			b = b[min(align(size), len(b)):]
		}
	}
}

// Text returns the text of a value that may end with NUL.
func Text(value []byte) string {
	if end := bytes.IndexByte(value, 0); end >= 0 {
		value = value[:end]
	}
	return string(value)
}

// message is one of the kernel's.
type message struct {
	kind, flags uint16
	seq         uint32
	body        []byte
}

// errno returns what an NLMSG_ERROR or NLMSG_DONE says, with the kernel's words
// where it has some.
func (m message) errno() error {
	if len(m.body) < 4 {
		return nil
	}
	code := -int32(binary.NativeEndian.Uint32(m.body))
	if code == 0 {
		return nil
	}
	err := error(unix.Errno(code))
	if m.flags&unix.NLM_F_ACK_TLVS == 0 || m.kind != unix.NLMSG_ERROR || len(m.body) < 4+unix.SizeofNlMsghdr {
		return err
	}
	rest := m.body[4:]
	echoed := unix.SizeofNlMsghdr
	if m.flags&unix.NLM_F_CAPPED == 0 {
		echoed = min(align(int(binary.NativeEndian.Uint32(rest))), len(rest))
	}
	for kind, value := range Attrs(rest[echoed:]) {
		if kind == unix.NLMSGERR_ATTR_MSG {
			err = fmt.Errorf("%w: %s", err, Text(value))
		}
	}
	return err
}

func align(n int) int { return (n + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) }
