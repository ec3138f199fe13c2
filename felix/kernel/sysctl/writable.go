package sysctl

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// MakeWritable undoes that a container runtime mounted Root read-only, in the mount
// namespace of the caller. So the agent's container needs no more than CAP_SYS_ADMIN,
// instead of all that "privileged" gives. It is no change where Root is writable.
func MakeWritable() error {
	var there unix.Statfs_t
	if err := unix.Statfs(Root, &there); err != nil {
		return fmt.Errorf("%s: %w", Root, err)
	}
	if there.Flags&unix.ST_RDONLY == 0 {
		return nil
	}
	keep := uintptr(0)
	for _, f := range []struct{ have, flag int64 }{
		{unix.ST_NOSUID, unix.MS_NOSUID}, {unix.ST_NODEV, unix.MS_NODEV}, {unix.ST_NOEXEC, unix.MS_NOEXEC},
	} {
		if there.Flags&f.have != 0 {
			keep |= uintptr(f.flag)
		}
	}
	if err := unix.Mount("", Root, "", unix.MS_REMOUNT|unix.MS_BIND|keep, ""); err != nil {
		return fmt.Errorf("%s is read-only and can't be made writable, expected a container with CAP_SYS_ADMIN and without an AppArmor profile: %w", Root, err)
	}
	return nil
}
