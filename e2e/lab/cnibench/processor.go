package cnibench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// findAgent returns the process of the agent of this node.
func findAgent() (int, error) {
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0, err
	}
	for _, file := range commands {
		words, err := os.ReadFile(file)
		name, rest, _ := bytes.Cut(words, []byte{0})
		if err == nil && filepath.Base(string(name)) == "korat" && bytes.HasPrefix(rest, []byte("agent\x00")) {
			return strconv.Atoi(filepath.Base(filepath.Dir(file)))
		}
	}
	return 0, errors.New("no agent runs on this node")
}

// processor returns how long plugins that have ended and the agent have worked: on a
// machine that does other things as well it tells more than the clock.
func (b bench) processor() (time.Duration, error) {
	var ended unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_CHILDREN, &ended); err != nil {
		return 0, fmt.Errorf("processor time: %w", err)
	}
	all := time.Duration(ended.Utime.Nano() + ended.Stime.Nano())
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", b.agent))
	if err != nil {
		return 0, err
	}
	for _, file := range threads {
		var worked time.Duration
		line, err := os.ReadFile(file)
		if err != nil {
			continue // a thread that has ended
		}
		if _, err := fmt.Sscan(string(line), &worked); err != nil {
			return 0, fmt.Errorf("%s: %w", file, err)
		}
		all += worked
	}
	return all, nil
}
