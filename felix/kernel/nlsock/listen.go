package nlsock

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// listenBuffer is room for the notifications of a burst.
const listenBuffer = 2 << 20

// Listener hears the notifications of groups. Its methods may be called by
// several goroutines.
type Listener struct {
	file   *os.File
	raw    syscall.RawConn
	groups []int

	mu  sync.Mutex // guards buf, and that datagrams are told in order
	buf []byte
}

// ErrOverrun says that there was more to hear than the kernel kept: some of it
// is lost.
var ErrOverrun = errors.New("notifications were lost")

// Listen begins to listen to groups of a netlink family in the network namespace
// of the calling thread. What the socket with the port not sent is not heard.
func Listen(family int, not uint32, groups ...int) (*Listener, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, family)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	l := &Listener{file: os.NewFile(uintptr(fd), "netlink"), groups: groups, buf: make([]byte, 64<<10)}
	if err := l.setUp(fd, not); err != nil {
		l.Close()
		return nil, fmt.Errorf("listen to netlink: %w", err)
	}
	return l, nil
}

func (l *Listener) setUp(fd int, not uint32) (err error) {
	if l.raw, err = l.file.SyscallConn(); err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, listenBuffer); err != nil {
		return err
	}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, notFrom(not)); err != nil {
		return err
	}
	return l.member(unix.NETLINK_ADD_MEMBERSHIP)
}

// Pause stops listening, and Resume goes on. The kernel writes a notification of
// every change only when somebody listens, which is a third of the work of a
// large one. Who pauses must find out otherwise what happens meanwhile.
func (l *Listener) Pause() error { return l.member(unix.NETLINK_DROP_MEMBERSHIP) }

// Resume goes on after Pause.
func (l *Listener) Resume() error { return l.member(unix.NETLINK_ADD_MEMBERSHIP) }

// member joins or leaves the groups.
func (l *Listener) member(option int) error {
	for _, g := range l.groups {
		var err error
		if failed := l.raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_NETLINK, option, g) }); failed != nil {
			err = failed
		}
		if err != nil {
			return fmt.Errorf("group %d: %w", g, err)
		}
	}
	return nil
}

// notFrom is a filter that lets pass what does not begin with a message from
// port: all messages of a datagram are about one request.
func notFrom(port uint32) *unix.SockFprog {
	// The filter reads words in network byte order.
	word := binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, port))
	code := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 12}, // nlmsg_pid
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: word, Jt: 0, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1<<32 - 1},
	}
	return &unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
}

// Close closes the socket and ends Wait.
func (l *Listener) Close() error { return l.file.Close() }

// Wait waits until there is something to hear, or ctx ends, which is an error.
func (l *Listener) Wait(ctx context.Context) error {
	// The deadline of an earlier Wait that ended by its context.
	if err := l.file.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = l.file.SetReadDeadline(time.Unix(1, 0))
		close(ended)
	})
	err := l.raw.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 && err == nil
	})
	if !stop() {
		<-ended
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	return nil
}

// Hear calls visit for each message that has come, and does not wait for more.
// What visit gets is valid only during the call. After ErrOverrun nothing is left
// to hear that happened before the call.
func (l *Listener) Hear(visit func(kind uint16, body []byte)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	overrun := false
	for {
		n, err := l.read()
		switch {
		case errors.Is(err, unix.EAGAIN):
			if overrun {
				return ErrOverrun
			}
			return nil
		case errors.Is(err, unix.ENOBUFS): // until all is read, the kernel drops the rest
			overrun = true
			continue
		case err != nil:
			return fmt.Errorf("netlink receive: %w", err)
		}
		if overrun {
			continue
		}
		for m := range All(l.buf[:n]) {
			visit(binary.NativeEndian.Uint16(m[4:]), m[unix.SizeofNlMsghdr:])
		}
	}
}

func (l *Listener) read() (n int, err error) {
	failed := l.raw.Control(func(fd uintptr) {
		for {
			if n, _, err = unix.Recvfrom(int(fd), l.buf, unix.MSG_DONTWAIT); !errors.Is(err, unix.EINTR) {
				return
			}
		}
	})
	if failed != nil {
		return 0, failed
	}
	return n, err
}
