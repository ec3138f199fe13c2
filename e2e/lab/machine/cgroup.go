package machine

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroupRoot is where hosts and machines have their control groups.
const cgroupRoot = "/sys/fs/cgroup"

// hierarchy is one tree of control groups and the place of this process in it.
type hierarchy struct {
	dir     string // below cgroupRoot
	options string // of its mount
	path    string
}

// hierarchies lists those of version 1 that container runtimes use.
func hierarchies() ([]hierarchy, error) {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	var out []hierarchy
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		f := strings.SplitN(s.Text(), ":", 3)
		if len(f) != 3 || f[1] == "" { // version 2 has no name
			continue
		}
		h := hierarchy{dir: f[1], options: f[1], path: f[2]}
		if name, ok := strings.CutPrefix(f[1], "name="); ok {
			h.dir, h.options = name, "none,"+f[1]
		}
		out = append(out, h)
	}
	if len(out) == 0 {
		return nil, errors.New("control groups of version 1: there are none, and machines with containers know no others")
	}
	return out, nil
}

// joinCgroups makes a control group of that name below the caller's own, in
// every hierarchy, and puts the calling thread into it. A child that the thread
// starts is born there.
func joinCgroups(name string) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		parent := filepath.Join(cgroupRoot, h.dir, h.path)
		group := filepath.Join(parent, name)
		if err := os.Mkdir(group, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("control group: %w", err)
		}
		if h.dir == "cpuset" {
			if err := inheritCPUs(parent, group); err != nil {
				return err
			}
		}
		thread := []byte(strconv.Itoa(unix.Gettid()))
		if err := os.WriteFile(filepath.Join(group, "tasks"), thread, 0o644); err != nil {
			return fmt.Errorf("join control group: %w", err)
		}
	}
	return nil
}

// inheritCPUs fills a new group of the hierarchy cpuset, which takes no process
// while it has no processors, and makes groups below do so by themselves.
func inheritCPUs(parent, group string) error {
	for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
		b, err := os.ReadFile(filepath.Join(parent, f))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(group, f), b, 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(group, "cgroup.clone_children"), []byte("1"), 0o644)
}

// mountCgroups shows a machine its own control groups as the roots.
func mountCgroups() error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", cgroupRoot, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount %s: %w", cgroupRoot, err)
	}
	for _, h := range all {
		dir := filepath.Join(cgroupRoot, h.dir)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("cgroup", dir, "cgroup", 0, h.options); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	return nil
}

// Cgroups lists the control groups whose names start with prefix, with all
// below them, the deepest first. A prefix that ends in / is a whole name.
func Cgroups(prefix string) []string {
	var out []string
	filepath.WalkDir(cgroupRoot, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.Contains(path+"/", "/"+prefix) {
			out = append([]string{path}, out...)
		}
		return nil // groups come and go meanwhile
	})
	return out
}

// removeCgroups removes what Cgroups lists, whose processes are dead. The kernel
// may take a moment after the last one's end until it agrees.
func removeCgroups(prefix string, deadline time.Time) error {
	for {
		left := Cgroups(prefix)
		if len(left) == 0 {
			return nil
		}
		var errs []error
		for _, g := range left {
			if err := os.Remove(g); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
		if len(errs) > 0 && time.Now().After(deadline) {
			return fmt.Errorf("control groups: %w", errors.Join(errs...))
		}
		if len(errs) > 0 {
			time.Sleep(10 * time.Millisecond) // there is no event for it
		}
	}
}
