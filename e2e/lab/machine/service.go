package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Service is a process that a machine's init started under a name and keeps
// account of. It is not started again when it ends.
type Service struct {
	Name string
	// PID is the process inside the machine. It is kept after the end.
	PID int
	// Running is false once the process has ended, then Status says how.
	Running bool
	Status  string
	Started time.Time
}

// Command is what Start runs, with paths as the machine sees them.
type Command struct {
	Args []string
	// Env is added to the environment of the machine's init.
	Env []string
	// Files are handed down as descriptors 3 and up; the caller keeps its own.
	Files []*os.File `json:"-"`
}

// request is one question to init over its socket; one of the fields is set.
type request struct {
	Start  *Command
	Signal syscall.Signal
	List   bool
	Name   string
}

type answer struct {
	Error    string
	Services []Service
}

const (
	controlSocket = "init.sock"
	maxPacket     = 1 << 16
	maxFiles      = 8
	logDir        = "/run/lab/log"
)

// Start starts a service. One of that name that still runs is an error. What
// it prints is added to the file Log names.
func (m *Machine) Start(name string, c Command) error {
	_, err := m.ask(request{Name: name, Start: &c})
	return err
}

// Signal sends sig to a service. One that has ended is not an error.
func (m *Machine) Signal(name string, sig syscall.Signal) error {
	_, err := m.ask(request{Name: name, Signal: sig})
	return err
}

// Services lists every service that was started, also those that have ended.
func (m *Machine) Services() ([]Service, error) {
	a, err := m.ask(request{List: true})
	return a.Services, err
}

// Service returns the service of that name; the zero Service if there never was one.
func (m *Machine) Service(name string) (Service, error) {
	all, err := m.Services()
	for _, s := range all {
		if s.Name == name {
			return s, nil
		}
	}
	return Service{}, err
}

// HostPID is the service's process as the host numbers it, zero if it has ended.
func (m *Machine) HostPID(s Service) int {
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", m.pid, m.pid))
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", m.pid))
	for _, t := range tasks {
		b, _ := os.ReadFile(t)
		children = append(children, b...)
	}
	for _, c := range strings.Fields(string(children)) {
		status, _ := os.ReadFile(filepath.Join("/proc", c, "status"))
		for line := range strings.Lines(string(status)) {
			f := strings.Fields(line)
			if len(f) > 1 && f[0] == "NSpid:" && f[len(f)-1] == strconv.Itoa(s.PID) {
				pid, _ := strconv.Atoi(c)
				return pid
			}
		}
	}
	return 0
}

// Log is the file on the host that a service's output goes to.
func (m *Machine) Log(name string) string {
	return filepath.Join(m.Dir, "run", strings.TrimPrefix(logDir, "/run"), name+".log")
}

func (m *Machine) ask(r request) (answer, error) {
	a, err := ask(filepath.Join(m.Dir, controlSocket), r)
	if err != nil && !m.Alive() {
		log, _ := os.ReadFile(filepath.Join(m.Dir, initLog))
		err = fmt.Errorf("%w; its init is dead and said:\n%s", err, log)
	}
	if err != nil {
		return a, fmt.Errorf("machine %s: %w", m.Name, err)
	}
	return a, nil
}

// ask sends one packet, with the descriptors of a command's files, and reads one.
func ask(socket string, r request) (answer, error) {
	var a answer
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Net: "unixpacket", Name: socket})
	if err != nil {
		return a, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	b, err := json.Marshal(r)
	if err != nil {
		return a, err
	}
	var fds []int
	if r.Start != nil {
		for _, f := range r.Start.Files {
			fds = append(fds, int(f.Fd()))
		}
	}
	if _, _, err := conn.WriteMsgUnix(b, unix.UnixRights(fds...), nil); err != nil {
		return a, err
	}
	buf := make([]byte, maxPacket)
	n, err := conn.Read(buf)
	if errors.Is(err, io.EOF) {
		return a, errors.New("init closed the connection without an answer")
	}
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal(buf[:n], &a); err != nil {
		return a, err
	}
	if a.Error != "" {
		return a, errors.New(a.Error)
	}
	return a, nil
}

// supervisor is init's side.
type supervisor struct {
	socket *net.UnixListener

	mu       sync.Mutex // guards services, and starting against reaping
	services []*Service
}

func newSupervisor(dir string) (*supervisor, error) {
	path := filepath.Join(dir, controlSocket)
	os.Remove(path)
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Net: "unixpacket", Name: path})
	if err != nil {
		return nil, err
	}
	return &supervisor{socket: l}, nil
}

func (s *supervisor) serve() error {
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	// A machine ends by SIGKILL from its lab. Caught, not ignored: children would inherit that.
	signal.Notify(make(chan os.Signal, 1), unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	go func() {
		for range children {
			s.reap()
		}
	}()
	for {
		conn, err := s.socket.AcceptUnix()
		if err != nil {
			return err
		}
		go s.handle(conn)
	}
}

// handle answers one request. What goes wrong before there is an answer is told in
// the log of init.
func (s *supervisor) handle(conn *net.UnixConn) {
	defer conn.Close()
	if err := s.converse(conn); err != nil {
		fmt.Fprintln(os.Stderr, time.Now().Format(time.RFC3339Nano), "request:", err)
	}
}

func (s *supervisor) converse(conn *net.UnixConn) error {
	buf, oob := make([]byte, maxPacket), make([]byte, unix.CmsgSpace(4*maxFiles))
	n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
	if err != nil {
		return err
	}
	files := received(oob[:oobn])
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	var r request
	if err := json.Unmarshal(buf[:n], &r); err != nil {
		return fmt.Errorf("%d bytes: %w", n, err)
	}
	if r.Start != nil {
		r.Start.Files = files
	}
	b, err := json.Marshal(s.answer(r))
	if err != nil {
		return err
	}
	_, err = conn.Write(b)
	return err
}

// received are the descriptors that came with a packet.
func received(oob []byte) []*os.File {
	msgs, _ := unix.ParseSocketControlMessage(oob)
	var files []*os.File
	for _, m := range msgs {
		fds, _ := unix.ParseUnixRights(&m)
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files
}

func (s *supervisor) answer(r request) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	var a answer
	switch {
	case r.Start != nil:
		if err := s.start(r.Name, *r.Start); err != nil {
			a.Error = fmt.Sprintf("start %s: %v", r.Name, err)
		}
	case r.List:
		for _, v := range s.services {
			a.Services = append(a.Services, *v)
		}
	default:
		if v := s.find(r.Name); v != nil && v.Running {
			if err := unix.Kill(v.PID, r.Signal); err != nil {
				a.Error = fmt.Sprintf("signal %s: %v", r.Name, err)
			}
		}
	}
	return a
}

func (s *supervisor) find(name string) *Service {
	for _, v := range s.services {
		if v.Name == name {
			return v
		}
	}
	return nil
}

func (s *supervisor) start(name string, c Command) error {
	v := s.find(name)
	if v != nil && v.Running {
		return fmt.Errorf("it runs already as process %d", v.PID)
	}
	log, err := os.OpenFile(filepath.Join(logDir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	p, err := os.StartProcess(c.Args[0], c.Args, &os.ProcAttr{
		Dir: "/", Env: append(os.Environ(), c.Env...),
		Files: append([]*os.File{null, log, log}, c.Files...),
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return err
	}
	pid := p.Pid
	p.Release()
	if v == nil {
		v = &Service{Name: name}
		s.services = append(s.services, v)
	}
	*v = Service{Name: name, PID: pid, Running: true, Started: time.Now()}
	return nil
}

// reap takes in every ended child, also orphans that init inherited.
func (s *supervisor) reap() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		for _, v := range s.services {
			if v.PID == pid && v.Running {
				v.Running, v.Status = false, describe(ws)
			}
		}
	}
}

func describe(ws unix.WaitStatus) string {
	if ws.Signaled() {
		return "killed by " + ws.Signal().String()
	}
	return "exit status " + strconv.Itoa(ws.ExitStatus())
}
