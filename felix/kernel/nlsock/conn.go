// Package nlsock talks netlink: requests that are answered, batches of them and
// dumps that are repeated when the kernel was interrupted. It is the one place
// where sequence numbers, acknowledgements and EINTR are dealt with; what the
// messages mean is the business of felix/kernel/route, felix/kernel/ipset and
// felix/kernel/nftables, which have many objects and write them by the hundred. (What is few goes
// through the handles of vishvananda/netlink.)
package nlsock

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The limits of a Conn. The receive buffer holds the acknowledgements of a full
// batch, errors included, which the default size does not. A kernel that does
// not answer for answerWithin has lost the request. A dump that was interrupted
// ten times in a row, and for a second, meets a storm of changes and is better
// tried again later.
const (
	receiveBuffer = 4 << 20
	answerWithin  = 10 // seconds
	dumpAttempts  = 10
	dumpWithin    = time.Second
	batchBytes    = 32 << 10
	batchMessages = 256
)

// Conn is a netlink socket. It is used by one goroutine at a time.
type Conn struct {
	fd   int
	port uint32
	seq  uint32
	buf  []byte
	// The buffers are as large as the largest transaction needed them to be.
	sendBuffer, receiveBuffer int
}

// Open opens a socket of a netlink family (unix.NETLINK_ROUTE …) in the network
// namespace of the calling thread, which it stays bound to.
func Open(family int) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, family)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	c := &Conn{fd: fd, buf: make([]byte, 64<<10), receiveBuffer: receiveBuffer}
	if err := c.setUp(family); err != nil {
		c.Close()
		return nil, fmt.Errorf("set up netlink socket: %w", err)
	}
	return c, nil
}

func (c *Conn) setUp(family int) error {
	if err := unix.Bind(c.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	addr, err := unix.Getsockname(c.fd)
	if err != nil {
		return err
	}
	c.port = addr.(*unix.SockaddrNetlink).Pid
	if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer); err != nil {
		return err
	}
	if err := unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: answerWithin}); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1); err != nil {
		return err
	}
	// Errors then do not carry the request back: the buffer holds more of them.
	if err := unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1); err != nil {
		return err
	}
	if family == unix.NETLINK_ROUTE {
		// Lets the kernel filter dumps instead of us.
		return unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	}
	return nil
}

// Port is the sender that notifications of changes made by this socket carry.
func (c *Conn) Port() uint32 { return c.port }

// Close closes the socket; closing it again is nothing.
func (c *Conn) Close() error {
	if c.fd < 0 {
		return nil
	}
	fd := c.fd
	c.fd = -1
	return unix.Close(fd)
}

// Do sends one request and returns the kernel's answer.
func (c *Conn) Do(r *Request) error {
	var answer error
	if err := c.Batch([]*Request{r}, func(_ int, err error) { answer = err }); err != nil {
		return err
	}
	return answer
}

// Batch sends the requests, in order, many in one message, and calls answer for
// each, in order, with what the kernel said. A failure of one does not stop the
// rest. The error is of the socket: the answers that were not given are unknown.
//
// Of each message the last request alone is acknowledged. The kernel goes through them
// in order and answers to an error always, so that those before it that were not
// answered have succeeded.
func (c *Conn) Batch(all []*Request, answer func(i int, err error)) error {
	for begin := 0; begin < len(all); {
		var out []byte
		end, first, last := begin, c.seq+1, 0
		for end < len(all) && end-begin < batchMessages && (end == begin || len(out)+len(all[end].b) <= batchBytes) {
			last = len(out)
			out = append(out, c.seal(all[end], 0)...)
			end++
		}
		acknowledged(out[last:])
		if err := c.send(out); err != nil {
			return err
		}
		for i := begin; i < end; {
			err := c.receive(func(m message) {
				if n := begin + int(m.seq-first); m.kind == unix.NLMSG_ERROR && n >= i && n < end {
					for ; i < n; i++ {
						answer(i, nil)
					}
					answer(i, m.errno())
					i++
				}
			})
			if err != nil {
				return err
			}
		}
		begin = end
	}
	return nil
}

// Dump sends the request for a list and calls visit with the body of every
// message of the answer. When the kernel was interrupted by a change, it begins
// again: restart is called before every attempt, and forgets what visit was told.
// What visit gets is valid only during the call.
func (c *Conn) Dump(r *Request, restart func(), visit func(kind uint16, body []byte) error) error {
	var err error
	for range attempts() {
		restart()
		if err = c.dump(r, visit); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
	return fmt.Errorf("dump interrupted again and again: %w", err)
}

// attempts yields as often as a dump is tried: a small one is over before the next
// change sooner or later, a large one takes its time each time.
func attempts() iter.Seq[int] {
	return func(yield func(int) bool) {
		began := time.Now()
		for n := 1; n <= dumpAttempts || time.Since(began) < dumpWithin; n++ {
			if !yield(n) {
				return
			}
		}
	}
}

func (c *Conn) dump(r *Request, visit func(uint16, []byte) error) error {
	if err := c.send(c.seal(r, unix.NLM_F_DUMP)); err != nil {
		return err
	}
	var result error
	for done := false; !done; {
		err := c.receive(func(m message) {
			if m.seq != c.seq || done {
				return
			}
			if m.flags&unix.NLM_F_DUMP_INTR != 0 {
				result = unix.EINTR
			}
			switch {
			case m.kind == unix.NLMSG_DONE || m.kind == unix.NLMSG_ERROR:
				done = true
				if err := m.errno(); err != nil && result == nil {
					result = err
				}
			case result == nil:
				result = visit(m.kind, m.body)
			}
		})
		if err != nil {
			return err
		}
	}
	return result
}

// Get sends a request that has one object as answer and calls visit with it.
// What visit gets is valid only during the call.
func (c *Conn) Get(r *Request, visit func(body []byte) error) error {
	if err := c.send(c.seal(r, 0)); err != nil {
		return err
	}
	var result error
	for done := false; !done; {
		err := c.receive(func(m message) {
			if m.seq != c.seq || done {
				return
			}
			if done = true; m.kind == unix.NLMSG_ERROR {
				result = m.errno()
			} else {
				result = visit(m.body)
			}
		})
		if err != nil {
			return err
		}
	}
	return result
}

// NoRoute reports whether the kernel answered by err, when it was asked for a route,
// that there is none, or one that says that nothing goes there: unreachable, prohibit
// or blackhole.
func NoRoute(err error) bool {
	return errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EINVAL)
}

// seal completes the header of r and returns its bytes.
func (c *Conn) seal(r *Request, flags uint16) []byte {
	c.seq++
	binary.NativeEndian.PutUint32(r.b, uint32(len(r.b)))
	binary.NativeEndian.PutUint16(r.b[6:], r.flags|flags|unix.NLM_F_REQUEST)
	binary.NativeEndian.PutUint32(r.b[8:], c.seq)
	binary.NativeEndian.PutUint32(r.b[12:], c.port)
	return r.b
}

// acknowledged has the kernel answer to a sealed request also when it succeeds.
func acknowledged(b []byte) {
	binary.NativeEndian.PutUint16(b[6:], binary.NativeEndian.Uint16(b[6:])|unix.NLM_F_ACK)
}

func (c *Conn) send(b []byte) error {
	if err := unix.Sendto(c.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("netlink send: %w", err)
	}
	return nil
}

// receive reads one datagram and calls visit for each message in it.
func (c *Conn) receive(visit func(message)) error {
	n, flags, err := c.read(0)
	if err != nil {
		c.drain()
		return fmt.Errorf("netlink receive: %w", err)
	}
	if flags&unix.MSG_TRUNC != 0 {
		return errors.New("netlink receive: message is larger than the buffer")
	}
	for b := c.buf[:n]; len(b) >= unix.SizeofNlMsghdr; {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.SizeofNlMsghdr || size > len(b) {
			return errors.New("netlink receive: broken message")
		}
		visit(message{
			kind:  binary.NativeEndian.Uint16(b[4:]),
			flags: binary.NativeEndian.Uint16(b[6:]),
			seq:   binary.NativeEndian.Uint32(b[8:]),
			body:  b[unix.SizeofNlMsghdr:size],
		})
		b = b[min(align(size), len(b)):]
	}
	return nil
}

// read reads a datagram; a signal (the runtime sends them to preempt) is no
// reason to give up.
func (c *Conn) read(how int) (n, flags int, err error) {
	for {
		n, _, flags, _, err = unix.Recvmsg(c.fd, c.buf, nil, how)
		if !errors.Is(err, unix.EINTR) {
			return n, flags, err
		}
	}
}

// drain forgets what is in the receive buffer. Once that has overrun, the kernel
// drops all answers until it is empty, also those to later requests.
func (c *Conn) drain() {
	for {
		if _, _, err := c.read(unix.MSG_DONTWAIT); err != nil && !errors.Is(err, unix.ENOBUFS) {
			return
		}
	}
}

// Retry calls list, a dump through a vishvananda/netlink handle, until the
// kernel was not interrupted by a change while it answered.
func Retry[T any](list func() (T, error)) (T, error) {
	var all T
	var err error
	for range attempts() {
		if all, err = list(); !errors.Is(err, nl.ErrDumpInterrupted) {
			return all, err
		}
	}
	return all, fmt.Errorf("dump interrupted again and again: %w", err)
}
