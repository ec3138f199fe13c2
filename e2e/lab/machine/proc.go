package machine

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// StartTime is when process pid started, in clock ticks since boot; zero if
// there is no such process or it is a zombie.
func StartTime(pid int) uint64 {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0
	}
	// The command's name is in parentheses and may hold anything, also spaces.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	const state, start = 0, 19
	if len(fields) <= start || fields[state] == "Z" || fields[state] == "X" {
		return 0
	}
	n, _ := strconv.ParseUint(fields[start], 10, 64)
	return n
}

// killAll ends every process whose network namespace is one of those named,
// and waits until they are gone. It returns the PIDs that would not go.
func killAll(netns []string, deadline time.Time) []int {
	ours := map[nsID]bool{}
	for _, name := range netns {
		if id, ok := identify(NetnsPath(name)); ok {
			ours[id] = true
		}
	}
	for {
		left := inside(ours)
		if len(left) == 0 || time.Now().After(deadline) {
			return left
		}
		for _, pid := range left {
			unix.Kill(pid, unix.SIGKILL)
		}
		time.Sleep(10 * time.Millisecond) // dying takes the kernel some milliseconds; there is no event to wait on for a stranger's child
	}
}

type nsID struct{ dev, ino uint64 }

func identify(path string) (nsID, bool) {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return nsID{}, false
	}
	return nsID{st.Dev, st.Ino}, true
}

// inside lists the processes that live in one of the namespaces, or in a
// namespace below a process that does: pods have their own.
func inside(ours map[nsID]bool) []int {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	pids := map[nsID]bool{} // process namespaces that belong to our machines
	host, _ := identify("/proc/self/ns/pid")
	var out []int
	for range 2 { // the second round finds what lives in the process namespaces of the first
		out = nil
		for _, d := range dirs {
			pid, _ := strconv.Atoi(filepath.Base(d))
			net, ok := identify(d + "/ns/net")
			if !ok || pid == os.Getpid() || StartTime(pid) == 0 {
				continue
			}
			pidns, _ := identify(d + "/ns/pid")
			if ours[net] || pids[pidns] {
				out = append(out, pid)
				if pidns != host {
					pids[pidns] = true
				}
			}
		}
	}
	return out
}
