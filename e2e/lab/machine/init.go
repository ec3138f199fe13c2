package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Init is the life of a machine's first process. Its argument is the Spec that
// Create passes. It sets up the mounts, says so on file descriptor 3, and then
// starts and reaps processes until it is killed; it returns only an error.
func Init(arg string) error {
	ready := os.NewFile(3, "ready")
	unix.CloseOnExec(3)
	var s Spec
	err := json.Unmarshal([]byte(arg), &s)
	var sup *supervisor
	if err == nil {
		sup, err = newSupervisor(s.Dir)
	}
	if err == nil {
		err = setUp(s)
	}
	if err != nil {
		fmt.Fprint(ready, err)
		return err
	}
	fmt.Fprint(ready, "ok")
	ready.Close()
	return sup.serve()
}

func setUp(s Spec) error {
	if err := unix.Sethostname([]byte(s.Name)); err != nil {
		return fmt.Errorf("host name: %w", err)
	}
	if err := mounts(s); err != nil {
		return err
	}
	if s.Containers {
		if err := setUpContainers(s); err != nil {
			return err
		}
	}
	for key, value := range s.Sysctls {
		err := os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0o644)
		if err != nil && !errors.Is(err, os.ErrNotExist) { // a kernel without IPv6 lacks some
			return fmt.Errorf("sysctl: %w", err)
		}
	}
	return nil
}

// OwnDirs are the directories whose changes a machine keeps to itself. They
// show the host's files otherwise, so Spec.Dir cannot be below one.
var OwnDirs = []string{"/etc", "/opt", "/var/lib"}

// mounts gives the machine its own files. The host's are seen below the
// overlays; no file of the host is ever written, nor a mount point made there.
func mounts(s Spec) error {
	type step struct {
		source, target, kind string
		flags                uintptr
	}
	const quiet = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	steps := []step{
		{"", "/", "", unix.MS_REC | unix.MS_PRIVATE},
		{"proc", "/proc", "proc", quiet},
		{"sysfs", "/sys", "sysfs", quiet},
	}
	for _, d := range OwnDirs {
		steps = append(steps, step{"overlay", d, "overlay", 0}) // a kubelet cannot read mounts without a source
	}
	steps = append(steps,
		step{s.Bin, BinDir, "", unix.MS_BIND},
		step{filepath.Join(s.Dir, "korat"), "/var/lib/korat", "", unix.MS_BIND},
		// Last, because the lab's own directory may be below /run.
		step{filepath.Join(s.Dir, "run"), "/run", "", unix.MS_BIND})
	for _, m := range steps {
		var options string
		switch {
		case m.kind == "overlay":
			upper := filepath.Join(s.Dir, "fs", strings.ReplaceAll(m.target[1:], "/", "-"))
			work := upper + ".work"
			if err := mkdirs(m.target, upper, work); err != nil {
				return err
			}
			options = fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", m.target, upper, work)
		case m.flags == unix.MS_BIND:
			if err := mkdirs(m.source, m.target); err != nil {
				return err
			}
		}
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, options); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	return mkdirs("/run/netns", "/run/lock", logDir, "/etc/cni/net.d", "/opt/cni/bin")
}

func mkdirs(paths ...string) error {
	for _, p := range paths {
		if err := os.MkdirAll(p, 0o755); err != nil {
			return err
		}
	}
	return nil
}
