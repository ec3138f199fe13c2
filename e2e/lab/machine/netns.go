package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// netnsDir is where iproute2 keeps named network namespaces.
const netnsDir = "/run/netns"

// NetnsPath is the file of the network namespace of that name.
func NetnsPath(name string) string { return filepath.Join(netnsDir, name) }

// AddNetns makes a network namespace of that name, with its loopback up.
func AddNetns(name string) error {
	path := NetnsPath(name)
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", name, err)
	}
	f.Close()
	err = onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		if err := loopbackUp(); err != nil {
			return fmt.Errorf("loopback: %w", err)
		}
		return unix.Mount(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), path, "", unix.MS_BIND, "")
	})
	if err != nil {
		os.Remove(path)
		return fmt.Errorf("network namespace %s: %w", name, err)
	}
	return nil
}

// loopbackUp works on the network namespace of the calling thread.
func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, lo)
}

// InNetns runs f on a thread that is in the network namespace of the file
// path. Sockets that f opens stay in it; f must not start goroutines that do.
func InNetns(path string, f func() error) error {
	return onThread(func() error {
		if err := enter(path, unix.CLONE_NEWNET); err != nil {
			return err
		}
		return f()
	})
}

// Netnses lists the named network namespaces that start with prefix.
func Netnses(prefix string) []string {
	paths, _ := filepath.Glob(filepath.Join(netnsDir, prefix+"*"))
	for i, p := range paths {
		paths[i] = filepath.Base(p)
	}
	return paths
}

// RemoveNetns removes a network namespace with its links, once no process is
// left in it. One that is not there is no error.
//
// It works in a mount namespace of its own: removing a file there also removes
// what is mounted on it elsewhere. In ours the mount may be out of reach, since
// the first `ip netns add` on a machine mounts a copy of the whole directory on
// top of it.
func RemoveNetns(name string) error {
	path := NetnsPath(name)
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return err
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return err
		}
		for unix.Unmount(path, unix.MNT_DETACH) == nil || unix.Unmount(netnsDir, unix.MNT_DETACH) == nil {
		}
		return os.Remove(path)
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove network namespace %s: %w", name, err)
	}
	return nil
}

// Destroy ends all processes in the network namespaces whose names start with
// prefix, with their machines, and removes the namespaces, their links and the
// machines' control groups.
// It finds everything by the namespaces themselves, so it also works when
// whoever made them was killed half-way. With none left it does nothing.
func Destroy(prefix string) error { return destroy(Netnses(prefix), prefix) }

func destroy(names []string, groups string) error {
	deadline := time.Now().Add(20 * time.Second)
	if left := killAll(names, deadline); len(left) > 0 {
		return fmt.Errorf("processes %v in namespaces %v do not end", left, names)
	}
	errs := []error{removeCgroups(groups, deadline)}
	for _, n := range names {
		errs = append(errs, RemoveNetns(n))
	}
	return errors.Join(errs...)
}
