// Package nflog reads the packets that rules of the firewall tell to a group of
// nfnetlink_log: the first bytes of each, with the prefix of the rule. felix/flow
// calls it, for what is denied.
//
// While nobody is denied it costs nothing, and a flood cannot block anything: the
// kernel gathers packets into batches, and what does not fit into a small receive
// buffer is lost, and counted. It counts in the order of the packets, so whoever
// reads slowly learns how many were missed.
package nflog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/policy"
)

// The numbers of linux/netfilter/nfnetlink_log.h.
const (
	packetMessage = unix.NFNL_SUBSYS_ULOG << 8
	configMessage = unix.NFNL_SUBSYS_ULOG<<8 | 1

	cfgCommand   = 1
	cfgMode      = 2
	cfgBatchSize = 3
	cfgTimeout   = 4
	cfgThreshold = 5
	cfgFlags     = 6

	bind       = 1 // values of the above
	copyPacket = 2
	countThem  = 1

	attrIn      = 4
	attrOut     = 5
	attrPayload = 9
	attrPrefix  = 10
	attrNumber  = 12

	headerBytes = 4 // struct nfgenmsg
)

// What the kernel gathers. 128 bytes of a packet hold an IPv6 header with the
// usual extensions and the ports. 64 such packets are one batch, or what has come
// in a tenth of a second. The receive buffer holds some 2,000 packets.
const (
	copyBytes     = 128
	batchPackets  = 64
	batchBytes    = 32 << 10
	batchTime     = 10 // hundredths of a second
	receiveBuffer = 512 << 10
)

// Packet is what is known of a packet that a rule told of.
type Packet struct {
	Prefix           string // of the rule
	In, Out          int    // interface numbers; 0: none
	Src, Dst         netip.Addr
	Protocol         policy.Protocol
	SrcPort, DstPort uint16 // only where the Protocol HasPorts, and not of later fragments
	Type, Code       uint8  // only where the Protocol HasMessages, as above
}

// Socket reads the packets of one group. Read is called by one goroutine; Close
// by any, and ends it.
type Socket struct {
	file *os.File
	raw  syscall.RawConn
	buf  []byte

	next    uint32 // number of the next packet
	counted bool   // next is known
}

// ErrTaken says that a group has a reader already.
var ErrTaken = errors.New("not permitted")

// Open takes over a group in the network namespace of the calling thread. It fails
// with ErrTaken when somebody else reads it.
func Open(group uint16) (*Socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	if err := setUp(fd, group); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("log group %d: %w", group, err)
	}
	file := os.NewFile(uintptr(fd), "nflog")
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("log group %d: %w", group, err)
	}
	return &Socket{file: file, raw: raw, buf: make([]byte, 2*batchBytes)}, nil
}

func setUp(fd int, group uint16) error {
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer); err != nil {
		return err
	}
	if err := unix.Sendto(fd, request(group), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	return answer(fd)
}

// request binds the group to the socket and says how packets are to be told.
func request(group uint16) []byte {
	be := binary.BigEndian
	b := make([]byte, unix.SizeofNlMsghdr, 128)
	b = append(b, unix.AF_UNSPEC, 0)
	b = be.AppendUint16(b, group)
	attr := func(kind uint16, value []byte) {
		b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(value)))
		b = binary.NativeEndian.AppendUint16(b, kind)
		b = append(b, value...)
		for len(b)%unix.NLMSG_ALIGNTO != 0 {
			b = append(b, 0)
		}
	}
	attr(cfgCommand, []byte{bind})
	attr(cfgMode, append(be.AppendUint32(nil, copyBytes), copyPacket, 0))
	attr(cfgBatchSize, be.AppendUint32(nil, batchBytes))
	attr(cfgTimeout, be.AppendUint32(nil, batchTime))
	attr(cfgThreshold, be.AppendUint32(nil, batchPackets))
	attr(cfgFlags, be.AppendUint16(nil, countThem))
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], configMessage)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	return b
}

// answer waits for the kernel's answer to the request. Packets may come before it.
func answer(fd int) error {
	buf := make([]byte, 2*batchBytes)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return errors.Join(errors.New("no answer"), err)
		}
		n, _, err = unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.ENOBUFS) {
			continue
		}
		if err != nil {
			return err
		}
		for kind, body := range messages(buf[:n]) {
			if kind != unix.NLMSG_ERROR || len(body) < 4 {
				continue
			}
			switch code := unix.Errno(-int32(binary.NativeEndian.Uint32(body))); code {
			case 0:
				return nil
			case unix.EPERM:
				return fmt.Errorf("%w: somebody else reads it, or the right is missing", ErrTaken)
			default:
				return code
			}
		}
	}
}

// Read waits for the next batch and calls visit for each packet in it. It returns
// how many packets were missed before or among them, and os.ErrClosed after Close.
func (s *Socket) Read(visit func(Packet)) (missed uint64, err error) {
	n := 0
	for n == 0 {
		var failure error
		err := s.raw.Read(func(fd uintptr) bool {
			n, _, failure = unix.Recvfrom(int(fd), s.buf, 0)
			return !errors.Is(failure, unix.EAGAIN)
		})
		switch {
		case err != nil: // there is no deadline, so it was closed
			return 0, os.ErrClosed
		case failure != nil && !errors.Is(failure, unix.ENOBUFS) && !errors.Is(failure, unix.EINTR):
			return 0, fmt.Errorf("netlink receive: %w", failure)
		case failure != nil:
			n = 0 // what was lost the numbers of the next packets tell
		}
	}
	for kind, body := range messages(s.buf[:n]) {
		if kind == packetMessage && len(body) >= headerBytes {
			p, number, numbered := decode(body[headerBytes:])
			if numbered {
				if s.counted {
					missed += uint64(number - s.next)
				}
				s.next, s.counted = number+1, true
			}
			visit(p)
		}
	}
	return missed, nil
}

// Close gives the group up.
func (s *Socket) Close() error { return s.file.Close() }

// InterfaceName returns the name of an interface of the socket's namespace, or ""
// if there is none of that number.
func (s *Socket) InterfaceName(index int) string {
	request, err := unix.NewIfreq("")
	if err != nil {
		return ""
	}
	request.SetUint32(uint32(index))
	var failure error
	err = s.raw.Control(func(fd uintptr) { failure = unix.IoctlIfreq(int(fd), unix.SIOCGIFNAME, request) })
	if err != nil || failure != nil {
		return ""
	}
	return request.Name()
}
