package kubelet

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/koratnet/korat/e2e/lab/machine"
)

// process is a container's process. Ticks is its start time by the kernel's
// account, so that an adopted PID is known to be the same process.
type process struct {
	PID     int
	Ticks   uint64
	Started time.Time
}

func (p process) alive() bool { return machine.StartTime(p.PID) == p.Ticks }

// readyWait is how long a pod's server may take to open its ports.
const readyWait = 10 * time.Second

// logsDir has the output of every container, as a kubelet's /var/log/pods.
const logsDir = "/run/lab/log/pods"

// startContainer starts the container's command in the sandbox, or the pod's
// server, for which it waits until its ports are open.
func (w *worker) startContainer(ctx context.Context, c *corev1.Container) error {
	if err := os.MkdirAll(logsDir, 0o755); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(logsDir, fmt.Sprintf("%s_%s_%s.log", w.rec.Pod.Namespace, w.rec.Pod.Name, c.Name)), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	args := append(append([]string{}, c.Command...), c.Args...)
	serves := len(args) == 0
	if serves {
		args = append(append(args, w.r.PodMain...), w.rec.Pod.Namespace+"/"+w.rec.Pod.Name)
		args = append(args, ports(c)...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Env = append(os.Environ(), "POD_NAMESPACE="+w.rec.Pod.Namespace, "POD_NAME="+w.rec.Pod.Name)
	for _, e := range c.Env {
		cmd.Env = append(cmd.Env, e.Name+"="+e.Value)
	}
	ready, opened, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	if serves {
		cmd.ExtraFiles = []*os.File{opened}
	}
	netns := machine.NetnsPath(NetnsName(w.rec.Pod))
	if w.rec.Pod.Spec.HostNetwork {
		netns = "/proc/1/ns/net"
	}
	err = machine.InNetns(netns, cmd.Start)
	opened.Close()
	if err != nil {
		return err
	}
	p := process{PID: cmd.Process.Pid, Ticks: machine.StartTime(cmd.Process.Pid), Started: time.Now()}
	w.procs[c.Name] = &p
	go func() { // ends with the process; machine.Init reaps it if the runner dies first
		cmd.Wait()
		w.exits <- c.Name
	}()
	if !serves {
		return nil
	}
	ready.SetReadDeadline(time.Now().Add(readyWait))
	if line, err := bufio.NewReader(ready).ReadString('\n'); err != nil {
		return fmt.Errorf("the server did not open its ports: %w (said %q)", err, line)
	}
	return nil
}

// adopt takes over the processes of an earlier runner that still run.
func (w *worker) adopt() {
	for name, p := range w.rec.Processes {
		if !p.alive() {
			continue
		}
		fd, err := unix.PidfdOpen(p.PID, 0)
		if err != nil {
			continue
		}
		w.procs[name] = &p
		go func() { // ends with the process
			defer unix.Close(fd)
			for {
				_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
				if !errors.Is(err, unix.EINTR) {
					break
				}
			}
			w.exits <- name
		}()
	}
}

// stopContainers ends the processes: first kindly, after a second by force. It
// returns when they are dead.
func (w *worker) stopContainers(ctx context.Context) {
	kill := func(sig syscall.Signal) {
		for _, p := range w.procs {
			if p.alive() {
				unix.Kill(-p.PID, sig) // the process group, which Setsid made
			}
		}
	}
	kill(unix.SIGTERM)
	force := time.NewTimer(time.Second)
	defer force.Stop()
	for len(w.procs) > 0 {
		select {
		case name := <-w.exits:
			delete(w.procs, name)
		case <-force.C:
			kill(unix.SIGKILL)
		case <-ctx.Done():
			return
		}
	}
}
