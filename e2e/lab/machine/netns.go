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

// AddNetns makes a network namespace of that name, with its loopback down.
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
		return unix.Mount(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), path, "", unix.MS_BIND, "")
	})
	if err != nil {
		os.Remove(path)
		return fmt.Errorf("network namespace %s: %w", name, err)
	}
	return nil
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

// Destroy ends all processes in the network namespaces whose names start with
// prefix, with their machines, and removes the namespaces and their links.
// It finds everything by the namespaces themselves, so it also works when
// whoever made them was killed half-way. With none left it does nothing.
func Destroy(prefix string) error {
	names := Netnses(prefix)
	if left := killAll(names, time.Now().Add(20*time.Second)); len(left) > 0 {
		return fmt.Errorf("processes %v in namespaces %s* do not end", left, prefix)
	}
	var errs []error
	for _, n := range names {
		path := NetnsPath(n)
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", path, err))
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
