package machine

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// privateDirs are the directories that a machine with containers has for itself
// alone, empty at first and on the disk of Spec.Dir: a runtime's layers cannot lie
// on an overlay, and no log of a pod may get onto the host.
var privateDirs = []string{"/var/lib/containerd", "/var/lib/kubelet", "/var/lib/cni", "/var/log"}

// kubeletSysctls are what a kubelet sets for the whole kernel. It finds files
// with these values in their place, so that the host's stay as they are.
var kubeletSysctls = map[string]string{
	"vm/overcommit_memory":      "1",
	"vm/panic_on_oom":           "0",
	"kernel/panic":              "10",
	"kernel/panic_on_oops":      "1",
	"kernel/keys/root_maxkeys":  "1000000",
	"kernel/keys/root_maxbytes": "25000000",
}

// setUpContainers does the rest of what a container runtime and a kubelet need.
func setUpContainers(s Spec) error {
	if err := mountCgroups(); err != nil {
		return err
	}
	for _, d := range privateDirs {
		own := filepath.Join(s.Dir, "fs", "own"+strings.ReplaceAll(d, "/", "-"))
		if err := mkdirs(own, d); err != nil {
			return err
		}
		if err := unix.Mount(own, d, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s: %w", d, err)
		}
	}
	for key, value := range kubeletSysctls {
		if err := mask(s, filepath.Join("/proc/sys", key), value); err != nil {
			return err
		}
	}
	// Containers see what is mounted here later, and those that are told to
	// mount for the node do.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share mounts: %w", err)
	}
	return nil
}

func mask(s Spec, path, value string) error {
	if _, err := os.Stat(path); err != nil {
		return nil // a kernel without it
	}
	file := filepath.Join(s.Dir, "fs", "sysctl"+strings.ReplaceAll(strings.TrimPrefix(path, "/proc/sys"), "/", "."))
	if err := os.WriteFile(file, []byte(value+"\n"), 0o644); err != nil {
		return err
	}
	if err := unix.Mount(file, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount over %s: %w", path, err)
	}
	return nil
}
