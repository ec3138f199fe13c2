package machine_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/koratnet/korat/e2e/lab/machine"
)

func TestMachineWithContainersKeepsEverythingToItself(t *testing.T) {
	const prefix = "kl-tcontainers-"
	destroy := func() {
		if err := machine.Destroy(prefix); err != nil {
			t.Error(err)
		}
	}
	destroy()
	t.Cleanup(destroy)
	if err := machine.AddNetns(prefix + "m"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	m, err := machine.Create(ctx, machine.Spec{
		Name: "m", Netns: prefix + "m", Dir: filepath.Join(t.TempDir(), "m"), Bin: t.TempDir(),
		Init: []string{"/proc/self/exe", initArg}, Containers: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	// What a kubelet and a runtime do: groups below the root, a global sysctl,
	// files on a disk, and mounts that others see.
	if err := m.Start("runtime", machine.Command{Args: []string{"/bin/sh", "-ec", `
		mkdir /sys/fs/cgroup/pids/kubepods /sys/fs/cgroup/pids/kubepods/pod
		echo $$ > /sys/fs/cgroup/pids/kubepods/pod/cgroup.procs
		echo 11 > /proc/sys/kernel/panic
		exec sleep 1000`}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the runtime is in its group", func() bool {
		return strings.TrimSpace(output(t, m, "sh", "-c", "cat /sys/fs/cgroup/pids/kubepods/pod/cgroup.procs 2> /dev/null || true")) != ""
	})
	groups := machine.Cgroups(prefix)
	if len(groups) < 4 || !strings.HasSuffix(groups[len(groups)-1], prefix+"m") || !strings.Contains(strings.Join(groups, " "), "/kubepods/pod") {
		t.Errorf("control groups on the host: %v", groups)
	}
	if b, _ := os.ReadFile("/proc/sys/kernel/panic"); strings.TrimSpace(string(b)) == "11" {
		t.Error("the machine changed kernel.panic of the host")
	}
	if got := output(t, m, "find", "/var/lib/containerd", "/var/lib/kubelet", "/var/log", "-mindepth", "1"); got != "" {
		t.Errorf("not empty: %s", got)
	}
	if got := output(t, m, "stat", "-f", "-c", "%T", "/var/lib/containerd"); strings.Contains(got, "overlay") {
		t.Errorf("layers would lie on %s", got)
	}
	if got := output(t, m, "findmnt", "-n", "-o", "PROPAGATION", "/"); got != "shared" {
		t.Errorf("mounts of / are %s, want shared", got)
	}

	destroy()
	if left := machine.Cgroups(prefix); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if out, err := exec.Command("ip", "netns").Output(); err != nil || strings.Contains(string(out), prefix) {
		t.Errorf("left behind: %s %v", out, err)
	}
}
