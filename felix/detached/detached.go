// Package detached runs parts of the agent as processes of their own, which go on
// when the agent ends: the BGP speaker and WireGuard in user space. It knows how such
// a process is started, how there is one at a time, and how it sees that nobody
// wants it any more; what it does is for others to know. The package holds no state.
package detached

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// lockTime is how long the process before may take to end: it stops answering
	// first. lockEvery is how often the next one tries.
	lockTime  = 5 * time.Second
	lockEvery = 20 * time.Millisecond
	// lookEvery is how often a process looks whether its socket is still there.
	lookEvery = 5 * time.Second
)

// Process is a process to start.
type Process struct {
	Args  []string   // its name and its arguments, with which this very program becomes it
	UID   uint32     // of the user and the group that it runs as
	Caps  []uintptr  // the capabilities that it has; no others
	Files []*os.File // what it gets open, from descriptor 3 on
}

// Start starts p in a session of its own, so that what ends the agent does not end
// it. It writes to the agent's outputs. The caller reaps it with Wait, if it lives
// that long.
func (p Process) Start() (*exec.Cmd, error) {
	// The kernel follows this link for a user who may not enter the binary's
	// directory, and when the file was replaced: an agent starts its own version.
	cmd := exec.Command("/proc/self/exe", p.Args[1:]...)
	cmd.Args[0] = p.Args[0]
	cmd.Stdout, cmd.Stderr, cmd.Dir, cmd.ExtraFiles = os.Stdout, os.Stderr, "/", p.Files
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:      true,
		Credential:  &syscall.Credential{Uid: p.UID, Gid: p.UID},
		AmbientCaps: p.Caps,
	}
	return cmd, cmd.Start()
}

// Directory makes dir, which root and the group gid alone may enter and write to, and
// gives it and what a process of another group left there to gid. It is root's: an
// agent that may not enter what is another's, as in a container, can enter it.
func Directory(dir string, gid int) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	errs := []error{os.Chown(dir, 0, gid), os.Chmod(dir, 0o770)}
	for _, e := range entries {
		if err := os.Lchown(filepath.Join(dir, e.Name()), gid, gid); !errors.Is(err, fs.ErrNotExist) { // its owner may have removed it
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Lock waits until this is the only process with a lock on the file name, which it
// makes. The kernel unlocks when the process ends, however it ends.
func Lock(ctx context.Context, name string) (unlock func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, lockTime)
	defer cancel()
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("another process holds %s: %w", name, err)
		case <-time.After(lockEvery):
		}
	}
}

// Gone returns true once the file name, which is there, is not there any more or is
// another one, and false when ctx ends before.
func Gone(ctx context.Context, name string) bool {
	own, err := os.Lstat(name)
	if err != nil {
		return true
	}
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-look.C:
			if now, err := os.Lstat(name); err != nil || !os.SameFile(own, now) {
				return true
			}
		}
	}
}
