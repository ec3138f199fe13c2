package nlsock

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"

	"golang.org/x/sys/unix"
)

// Messages are requests in a row, in one buffer: for Commit, which is given so
// many of them that each cannot have a Request of its own. The attributes of the
// message begun last are added by the methods of Request. The zero value is empty.
type Messages struct {
	Request
	begin, count int
}

// Begin begins a message of a kind with flags and a fixed header.
func (m *Messages) Begin(kind, flags uint16, header []byte) *Request {
	m.end()
	m.begin = len(m.b)
	m.count++
	m.b = append(m.b, make([]byte, unix.SizeofNlMsghdr)...)
	binary.NativeEndian.PutUint16(m.b[m.begin+4:], kind)
	binary.NativeEndian.PutUint16(m.b[m.begin+6:], flags|unix.NLM_F_REQUEST)
	m.b = append(m.b, header...)
	m.pad()
	return &m.Request
}

// end completes the header of the message begun last.
func (m *Messages) end() {
	if m.count > 0 {
		binary.NativeEndian.PutUint32(m.b[m.begin:], uint32(len(m.b)-m.begin))
	}
}

// Count returns how many messages there are, Size how many bytes.
func (m *Messages) Count() int { return m.count }

// Size returns how many bytes the messages have.
func (m *Messages) Size() int { return len(m.b) }

// Reset forgets the messages and keeps the memory.
func (m *Messages) Reset() { m.b, m.begin, m.count = m.b[:0], 0, 0 }

// Grow makes room for so many bytes more.
func (m *Messages) Grow(bytes int) { m.b = slices.Grow(m.b, bytes) }

// Bytes returns the messages as they stand. It is valid until the next Begin or
// Reset.
func (m *Messages) Bytes() []byte {
	m.end()
	return m.b
}

// All yields the messages in b, each with its header.
func All(b []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for len(b) >= unix.SizeofNlMsghdr {
			size := int(binary.NativeEndian.Uint32(b))
			if size < unix.SizeofNlMsghdr || size > len(b) || !yield(b[:size]) {
				return
			}
			b = b[min(align(size), len(b)):]
		}
	}
}

// Refusal is what the kernel had against one message of a transaction.
type Refusal struct {
	Index int // of the message, over all parts
	Err   error
}

// Commit sends messages of a subsystem of nfnetlink (unix.NFNL_SUBSYS_NFTABLES)
// as one transaction, which the kernel takes whole or not at all. The parts are
// taken in order, and their headers are completed. With a generation other than
// zero the transaction is refused, with ERESTART, unless the rules are of that
// generation.
//
// Refusals say why the transaction was not taken, in order; without one, and
// without an error, it was. The error is of the whole transaction. After one of
// the socket, ENOBUFS for example, nobody knows whether it was taken.
func (c *Conn) Commit(subsystem uint8, generation uint32, parts ...[]byte) ([]Refusal, error) {
	begin := c.mark(unix.NFNL_MSG_BATCH_BEGIN, subsystem)
	if generation != 0 {
		begin.Attr(unix.NFNL_BATCH_GENID, binary.BigEndian.AppendUint32(nil, generation))
	}
	buffers := append(append([][]byte{c.seal(begin, 0)}, parts...), nil)
	first, size := c.seq, len(begin.b)
	var last []byte
	for _, part := range parts {
		size += len(part)
		for m := range All(part) {
			c.seq++
			binary.NativeEndian.PutUint32(m[8:], c.seq)
			binary.NativeEndian.PutUint32(m[12:], c.port)
			last = m
		}
	}
	if last == nil {
		return nil, nil
	}
	// The kernel answers after it has looked at all, in order: so one answer tells
	// that there are no more. (Acknowledging the end came with Linux 6.10 only.)
	flags := binary.NativeEndian.Uint16(last[6:])
	binary.NativeEndian.PutUint16(last[6:], flags|unix.NLM_F_ACK)
	end := c.seq
	if err := c.roomFor(int(end - first)); err != nil {
		return nil, err
	}
	tail := c.seal(c.mark(unix.NFNL_MSG_BATCH_END, subsystem), 0)
	buffers[len(buffers)-1] = tail
	if err := c.sendAll(buffers, size+len(tail)); err != nil {
		return nil, err
	}
	return c.verdict(first, end)
}

// answerBytes is what the kernel counts for one answer, at least half of it: it
// doubles the size of a receive buffer that it is told.
const answerBytes = 1 << 10

// roomFor makes the receive buffer large enough for so many answers, all of which
// come before the first is read.
func (c *Conn) roomFor(answers int) error {
	size := answers * answerBytes
	if size <= c.receiveBuffer {
		return nil
	}
	if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size); err != nil {
		return fmt.Errorf("netlink: make room for %d answers: %w", answers, err)
	}
	c.receiveBuffer = size
	return nil
}

// verdict reads the answers to a transaction that began and ended with these
// sequence numbers.
func (c *Conn) verdict(begin, end uint32) ([]Refusal, error) {
	var refusals []Refusal
	var whole error
	for done := false; !done; {
		err := c.receive(func(m message) {
			if m.kind != unix.NLMSG_ERROR || m.seq-begin > end-begin {
				return
			}
			err := m.errno()
			if m.seq == begin {
				whole, done = err, true
				return
			}
			if err != nil {
				refusals = append(refusals, Refusal{Index: int(m.seq - begin - 1), Err: err})
			}
			done = done || m.seq == end
		})
		if err != nil {
			return nil, err
		}
	}
	return refusals, whole
}

// mark returns the message that begins or ends a transaction.
func (c *Conn) mark(kind uint16, subsystem uint8) *Request {
	return NewRequest(kind, 0, []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, subsystem})
}

// sendAll sends buffers as one datagram, for which it makes room.
func (c *Conn) sendAll(buffers [][]byte, size int) error {
	if size > c.sendBuffer {
		// The kernel doubles what it is told, and needs some of it for itself.
		if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, size); err != nil {
			return fmt.Errorf("netlink send: make room for %d bytes: %w", size, err)
		}
		c.sendBuffer = size
	}
	n, err := unix.SendmsgBuffers(c.fd, buffers, nil, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}, 0)
	if err == nil && n != size {
		err = errors.New("not everything was sent")
	}
	if err != nil {
		return fmt.Errorf("netlink send: %w", err)
	}
	return nil
}
