package sysctl_test

import (
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/kernel/sysctl"
)

// insideEnv makes the test binary what runs in a mount namespace of its own.
const insideEnv = "KORAT_TEST_INSIDE"

func TestAReadOnlyTreeIsMadeWritable(t *testing.T) {
	if os.Getenv(insideEnv) == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), insideEnv+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET, Unshareflags: unix.CLONE_NEWNS}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	// As runtimes do it.
	must(unix.Mount(sysctl.Root, sysctl.Root, "", unix.MS_BIND, ""))
	must(unix.Mount("", sysctl.Root, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID, ""))
	const name = sysctl.Root + "/net/ipv4/ip_forward"
	if err := os.WriteFile(name, []byte("1"), 0); err == nil {
		t.Fatal("the tree is writable, want it read-only before")
	}
	for range 2 {
		must(sysctl.MakeWritable())
		must(os.WriteFile(name, []byte("1"), 0))
	}
	var there unix.Statfs_t
	must(unix.Statfs(sysctl.Root, &there))
	if there.Flags&unix.ST_NOSUID == 0 {
		t.Error("the mount lost nosuid")
	}
}
