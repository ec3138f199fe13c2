package wireguard

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"github.com/koratnet/korat/felix/detached"
)

// ServeConfig is what a process in user space is told by flags.
type ServeConfig struct {
	Device  string // a tun of the user that the process runs as
	RunDir  string // the agent's
	Version string
	Log     *slog.Logger
}

// server is a process in user space.
type server struct {
	cfg    ServeConfig
	device *device.Device
	inside inside
	stop   context.CancelFunc
}

// Serve encrypts what goes into the tun and decrypts what comes from others, as it
// is told on its socket, until ctx ends, the tun is removed, or somebody takes the
// socket away. It needs no privilege. It knows nothing when it begins.
func Serve(ctx context.Context, c ServeConfig) error {
	// Nobody, not even a process of the same user, reads keys out of this one.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid dumps: %w", err)
	}
	unlock, err := detached.Lock(ctx, filepath.Join(dirOf(c.RunDir), c.Device+".lock"))
	if err != nil {
		return err
	}
	defer unlock()
	inside, err := openTun(c.Device)
	if err != nil {
		return fmt.Errorf("interface %s: %w", c.Device, err)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	s := &server{cfg: c, inside: inside, stop: stop}
	s.device = device.NewDevice(inside, conn.NewDefaultBind(), logger(ctx, c.Log))
	defer s.device.Close()
	return s.serve(ctx)
}

// logger writes what the protocol's implementation says to log.
func logger(ctx context.Context, log *slog.Logger) *device.Logger {
	at := func(level slog.Level) func(string, ...any) {
		if !log.Enabled(ctx, level) {
			return device.DiscardLogf
		}
		return func(format string, args ...any) {
			log.Log(context.WithoutCancel(ctx), level, "wireguard", "says", fmt.Sprintf(format, args...))
		}
	}
	return &device.Logger{Verbosef: at(slog.LevelDebug), Errorf: at(slog.LevelWarn)}
}

func (s *server) serve(ctx context.Context) error {
	socket := socketOf(s.cfg.RunDir, s.cfg.Device)
	_ = os.Remove(socket) // of one that was killed: we hold the lock
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	l.SetUnlinkOnClose(false)                       // it may be another's by then
	if err := os.Chmod(socket, 0o666); err != nil { // the directory admits the agent alone
		return fmt.Errorf("socket: %w", err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer s.stop()
	wg.Go(func() { // ends when nobody wants this process
		if detached.Gone(ctx, socket) {
			s.cfg.Log.Info("the socket was taken away, so this process ends", "socket", socket)
			s.stop()
		}
	})
	wg.Go(func() { // ends when the interface was removed
		select {
		case <-ctx.Done():
		case <-s.device.Wait():
			s.cfg.Log.Info("the interface was removed, so this process ends", "interface", s.cfg.Device)
			s.stop()
		}
	})
	context.AfterFunc(ctx, func() { l.Close() })
	for {
		c, err := l.AcceptUnix()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("socket: %w", err)
		}
		wg.Go(func() { s.talk(c) })
	}
}

// talk serves one connection. It looks at the interface's MTU afterwards.
func (s *server) talk(c *net.UnixConn) {
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(answerWithin)); err != nil {
		return
	}
	lines := bufio.NewReader(c)
	first, err := lines.ReadString('\n')
	version, ok := strings.CutPrefix(first, greeting)
	if err != nil || !ok && first != glance+s.cfg.Version+"\n" {
		return
	}
	if ok && version != s.cfg.Version+"\n" {
		s.cfg.Log.Info("an agent of another version asks, so this process ends", "version", s.cfg.Version)
		s.stop()
		return
	}
	if err := s.inside.attached(); err != nil {
		s.cfg.Log.Info("the interface was removed, so this process ends", "interface", s.cfg.Device, "error", err)
		s.stop()
		return
	}
	// From the first connection on: a port that is taken is an error of who names it.
	if err := s.device.Up(); err != nil {
		s.cfg.Log.Warn("wireguard does not begin", "interface", s.cfg.Device, "error", err)
		return
	}
	s.device.IpcHandle(begun{c, lines})
	select {
	case s.inside.events <- tun.EventMTUUpdate:
	case <-s.device.Wait():
	}
}

// begun is a connection of which something was read.
type begun struct {
	net.Conn
	rest io.Reader
}

// Read reads what was not read yet.
func (b begun) Read(p []byte) (int, error) { return b.rest.Read(p) }

// inside is the tun. What happens to it is not asked of the kernel, which takes
// privilege: whoever changes it talks to the process afterwards.
type inside struct {
	tun.Device
	events chan tun.Event
}

// Events tells what happened to the tun.
func (i inside) Events() <-chan tun.Event { return i.events }

// attached returns an error when the tun that was opened was removed: there may be
// another one of its name, for which somebody looks for a process.
func (i inside) attached() error {
	request, err := unix.NewIfreq("")
	if err != nil {
		return err
	}
	raw, err := i.File().SyscallConn()
	if err != nil {
		return err
	}
	if failed := raw.Control(func(fd uintptr) { err = unix.IoctlIfreq(int(fd), unix.TUNGETIFF, request) }); failed != nil {
		return failed
	}
	return err
}

// tunFD is the descriptor of the device of tuns, which root alone may open, in a
// process in user space.
const tunFD = 3

// openTun opens a tun that is there: it needs privilege to make one.
func openTun(name string) (inside, error) {
	if _, err := net.InterfaceByName(name); err != nil {
		return inside{}, err
	}
	const fd = tunFD
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		return inside{}, errors.Join(err, unix.Close(fd))
	}
	device, _, err := tun.CreateUnmonitoredTUNFromFD(fd)
	if err != nil {
		return inside{}, errors.Join(err, unix.Close(fd))
	}
	return inside{device, make(chan tun.Event)}, nil
}
