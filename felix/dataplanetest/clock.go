package dataplanetest

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/kernel/kerneltest"
)

// hops is more than the number of queues that a packet waits in on its way.
const hops = 6

// clock tells when every packet that was sent before has arrived or is lost. A
// veth hands a packet to the queue of the CPU that sends it, which is worked off
// in order whichever device a packet is for. So when a frame of another wire,
// sent later on the same CPU, has come through, all that was in the queue before
// it has been worked off too, and what that put into the queue again will be
// before the next frame.
type clock struct {
	t        testing.TB
	out, in  int // packet sockets at the ends of a wire
	outIndex int
}

// clockType is the type of frames of the clock: one for experiments.
const clockType = 0x88b5

func newClock(t testing.TB) *clock {
	t.Helper()
	here := kerneltest.New(t)
	there := kerneltest.Pod(here, "tick")
	c := &clock{t: t, outIndex: here.Link("tick").Attrs().Index}
	here.Do(func() { c.out = packetSocket(t, unix.SOCK_DGRAM, 0, c.outIndex) })
	there.Do(func() { c.in = packetSocket(t, unix.SOCK_DGRAM, clockType, there.Link("eth0").Attrs().Index) })
	kerneltest.Eventually(t, "the clock's wire up", func() bool {
		return up(here, "tick") && up(there, "eth0")
	})
	return c
}

// settle returns when nothing is under way any more.
func (c *clock) settle() {
	c.t.Helper()
	to := &unix.SockaddrLinklayer{Ifindex: c.outIndex, Protocol: swapped(clockType), Halen: 6, Addr: [8]byte{255, 255, 255, 255, 255, 255}}
	buf := make([]byte, 64)
	for range hops {
		if err := unix.Sendto(c.out, []byte("tick"), 0, to); err != nil {
			c.t.Fatalf("send a frame of the clock: %v", err)
		}
		for deadline := time.Now().Add(time.Minute); ; runtime.Gosched() {
			if _, _, err := unix.Recvfrom(c.in, buf, 0); err == nil {
				break
			}
			if time.Now().After(deadline) {
				c.t.Fatal("the clock stands still")
			}
		}
	}
}

// packetSocket opens a packet socket of the thread's namespace at an interface,
// for the frames of one type; 0 receives none.
func packetSocket(t testing.TB, kind int, frames uint16, index int) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatalf("packet socket: %v", err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20); err != nil {
		t.Fatalf("packet socket: %v", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: swapped(frames), Ifindex: index}); err != nil {
		t.Fatalf("bind packet socket: %v", err)
	}
	return fd
}

// swapped is a number in the byte order of the network.
func swapped(n uint16) uint16 { return n<<8 | n>>8 }

func up(n *kerneltest.Namespace, iface string) bool {
	return n.Link(iface).Attrs().OperState.String() == "up"
}

// oneCPU keeps the goroutine, which is the only one that sends, on one CPU.
func oneCPU(t testing.TB) {
	t.Helper()
	runtime.LockOSThread() // without Unlock: the runtime ends the thread
	var set unix.CPUSet
	set.Set(0)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		t.Fatalf("stay on one CPU: %v", err)
	}
}
