// Package machine makes machines out of namespaces: network, mount, process,
// host name and IPC namespaces with an init process of their own. Inside, /run,
// /var/lib/korat and what is written to /etc, /opt and /var/lib belong to the
// machine alone, so programs run with their real paths.
//
// A machine is its init process: when that dies, the kernel ends every process
// and removes every mount of the machine. What is left on the host then is one
// named network namespace, whose name starts with the lab's prefix, and one
// directory; Destroy removes both. Nothing depends on the process that made
// the machine staying alive.
package machine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Spec says what a machine is.
type Spec struct {
	// Name is the machine's name and host name.
	Name string
	// Netns is the name of its network namespace, which must exist.
	Netns string
	// Dir is the directory on the host that holds the machine's files.
	Dir string
	// Bin is a directory on the host that appears as BinDir inside.
	Bin string
	// Init is the command on the host that calls Init, without its argument.
	Init []string
	// Containers makes it a machine that can run a container runtime and a
	// kubelet: it has control groups of its own, shares its mounts with its
	// containers, and keeps their files and logs to itself.
	Containers bool
	// Sysctls are set inside, keyed by path below /proc/sys.
	Sysctls map[string]string
}

// BinDir is where a machine sees the directory Spec.Bin.
const BinDir = "/opt/korat/bin"

// Machine is a running machine.
type Machine struct {
	Name, Netns, Dir string

	pid   int
	start uint64 // the init process's start time, so that a reused PID is not taken for it
}

// record is what the file initFile in a machine's directory holds.
type record struct {
	Name, Netns string
	PID         int
	Start       uint64
}

const (
	initFile = "init.json"
	initLog  = "init.log"
)

// Create starts a machine and returns when it is set up.
func Create(ctx context.Context, s Spec) (*Machine, error) {
	m := &Machine{Name: s.Name, Netns: s.Netns, Dir: s.Dir}
	if err := m.create(ctx, s); err != nil {
		return nil, fmt.Errorf("machine %s: %w", s.Name, err)
	}
	return m, nil
}

func (m *Machine) create(ctx context.Context, s Spec) error {
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return err
	}
	arg, err := json.Marshal(s)
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(s.Dir, initLog))
	if err != nil {
		return err
	}
	defer log.Close()
	ready, done, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	cmd := exec.Command(s.Init[0], append(s.Init[1:], string(arg))...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{done}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
	}
	err = startIn(cmd, func() error {
		if s.Containers {
			// Its root is where this thread is when it starts init.
			cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWCGROUP
			if err := joinCgroups(s.Netns); err != nil {
				return err
			}
		}
		return enter(NetnsPath(s.Netns), unix.CLONE_NEWNET)
	})
	done.Close()
	if err != nil {
		return fmt.Errorf("start init: %w", err)
	}
	if m.pid, m.start, err = cmd.Process.Pid, StartTime(cmd.Process.Pid), nil; m.start == 0 {
		return errors.New("init died at once")
	}
	go cmd.Wait() // reaps init should it die before this process does
	if err := m.save(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { ready.SetDeadline(time.Now()) })
	defer stop()
	msg, err := io.ReadAll(ready)
	if err != nil || string(msg) != "ok" {
		return errors.Join(fmt.Errorf("init: %s", bytes.TrimSpace(msg)), err)
	}
	return nil
}

func (m *Machine) save() error {
	b, err := json.Marshal(record{Name: m.Name, Netns: m.Netns, PID: m.pid, Start: m.start})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(m.Dir, initFile), b, 0o644)
}

// Open finds the machine whose directory is dir. Its init may be dead: see Alive.
func Open(dir string) (*Machine, error) {
	b, err := os.ReadFile(filepath.Join(dir, initFile))
	if err != nil {
		return nil, fmt.Errorf("machine: %w", err)
	}
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("machine %s: %w", dir, err)
	}
	return &Machine{Name: r.Name, Netns: r.Netns, Dir: dir, pid: r.PID, start: r.Start}, nil
}

// Alive says whether the machine's init process runs.
func (m *Machine) Alive() bool { return m.pid > 0 && StartTime(m.pid) == m.start }

// Path is where the host finds the machine's file p.
func (m *Machine) Path(p string) string {
	return filepath.Join("/proc", strconv.Itoa(m.pid), "root", p)
}

// Run runs cmd inside the machine, with all its namespaces, and waits for it.
// A command that ends with a non-zero status is an *exec.ExitError.
func (m *Machine) Run(cmd *exec.Cmd) error {
	return m.RunIn(cmd, "")
}

// RunIn is Run with the network namespace that the machine's file netns names.
func (m *Machine) RunIn(cmd *exec.Cmd, netns string) error {
	if !m.Alive() {
		return fmt.Errorf("machine %s is not running", m.Name)
	}
	if netns != "" {
		netns = m.Path(netns)
	}
	if err := startIn(cmd, func() error { return m.enterAll(netns) }); err != nil {
		return fmt.Errorf("machine %s: %w", m.Name, err)
	}
	return cmd.Wait()
}

// enterAll puts the calling thread into the machine's namespaces. The process
// namespace counts for children only, which is what a caller starts next.
func (m *Machine) enterAll(netns string) error {
	if netns == "" {
		netns = fmt.Sprintf("/proc/%d/ns/net", m.pid)
	}
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	net, err := os.Open(netns)
	if err != nil {
		return err
	}
	defer net.Close()
	for _, ns := range []struct {
		name string
		kind int
	}{{"ipc", unix.CLONE_NEWIPC}, {"uts", unix.CLONE_NEWUTS}, {"pid", unix.CLONE_NEWPID}, {"mnt", unix.CLONE_NEWNS}} {
		if err := enter(fmt.Sprintf("/proc/%d/ns/%s", m.pid, ns.name), ns.kind); err != nil {
			return err
		}
	}
	return unix.Setns(int(net.Fd()), unix.CLONE_NEWNET)
}

// startIn starts cmd on a thread that prepare has put where the child shall be.
func startIn(cmd *exec.Cmd, prepare func() error) error {
	return onThread(func() error {
		if err := prepare(); err != nil {
			return err
		}
		return cmd.Start()
	})
}

// onThread calls f on a thread of its own, which f may move to other
// namespaces: it is never used for anything else and ends with f.
func onThread(f func() error) error {
	errc := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked, so that the thread ends
		if unix.Gettid() == unix.Getpid() {
			// The main thread cannot end: it would stay where f took it, and with
			// it the whole process as others see it. Held here, f gets another.
			errc <- onThread(f)
			runtime.UnlockOSThread()
			return
		}
		errc <- f()
	}()
	return <-errc
}

func enter(path string, kind int) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), kind); err != nil {
		return fmt.Errorf("enter %s: %w", path, err)
	}
	return nil
}
