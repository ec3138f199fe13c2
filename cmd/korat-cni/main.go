// Command korat-cni is the CNI plugin. It holds no credentials and decides
// nothing: it hands what the runtime gave it to the agent on this node, as it is, and
// prints the agent's answer. A runtime starts it for every pod and waits, so it links
// no library of CNI, and no network stack.
//
// While no agent runs, ADD waits a moment for one and then says "try again later" (CNI
// code 11), and DEL leaves a tombstone that the agent carries out at its start, and
// succeeds: a pod can always be taken away.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/koratnet/korat/felix/cniserver/wire"
)

// version is set by the linker.
var version = "unknown"

// conf is what the plugin itself needs of its part of a conflist.
type conf struct {
	Name string `json:"name"`
	// Socket is the path of the agent's socket; wire.DefaultSocket if empty.
	Socket string `json:"socket"`
	IPAM   struct {
		Type string `json:"type"`
	} `json:"ipam"`
}

// The codes of errors in the CNI specification.
const (
	codeEnvironment  = 4
	codeIO           = 5
	codeDecoding     = 6
	codeConfig       = 7
	codeTryLater     = 11
	codeNotAvailable = 50
	codeInternal     = 999
)

// A node that was rebooted has its conflist, so the runtime calls before the agent
// runs, and between two agents of an upgrade too. A kubelet tries again ten seconds
// after an ADD that failed.
const (
	patience = 5 * time.Second // of ADD, for an agent that starts
	knocks   = 20 * time.Millisecond
)

func main() {
	call := wire.Call{
		Command: wire.Command(os.Getenv(wire.EnvCommand)), ContainerID: os.Getenv(wire.EnvContainerID), Netns: os.Getenv(wire.EnvNetns),
		IfName: os.Getenv(wire.EnvIfName), Args: os.Getenv(wire.EnvArgs), Path: os.Getenv(wire.EnvPath), NetnsOverride: os.Getenv(wire.EnvNetnsOverride),
	}
	switch call.Command {
	case "":
		os.Stderr.WriteString("Korat CNI plugin " + version + "\nCNI protocol versions supported: " + strings.Join(wire.Versions, ", ") + "\n")
		return
	case "VERSION":
		newest := wire.Versions[len(wire.Versions)-1]
		os.Stdout.WriteString(`{"cniVersion":"` + newest + `","supportedVersions":["` + strings.Join(wire.Versions, `","`) + "\"]}\n")
		return
	}
	printed, failed := run(&call)
	if _, err := os.Stdout.Write(printed); err != nil || failed {
		os.Exit(1)
	}
}

// run carries out call and returns what is to be printed.
func run(call *wire.Call) (printed []byte, failed bool) {
	var err error
	if call.Config, err = io.ReadAll(os.Stdin); err != nil {
		return tell(&wire.Error{Code: codeIO, Message: "standard input", Details: err.Error()})
	}
	c, err := parse(call.Config)
	if err == nil && c.delegates() {
		return c.withDelegate(call)
	}
	if err != nil {
		return tell(err)
	}
	return c.ask(call)
}

// parse reads the configuration if there is something in it for the plugin itself.
// As a rule there is not: the agent reads the rest.
func parse(config []byte) (*conf, error) {
	c := &conf{}
	if bytes.Contains(config, []byte(`"socket"`)) || bytes.Contains(config, []byte(`"ipam"`)) {
		if err := json.Unmarshal(config, c); err != nil {
			return nil, &wire.Error{Code: codeDecoding, Message: "network configuration", Details: err.Error()}
		}
	}
	if c.Socket == "" {
		c.Socket = wire.DefaultSocket
	}
	if !filepath.IsAbs(c.Socket) {
		return nil, &wire.Error{Code: codeConfig, Message: "socket is " + c.Socket + ", expected the absolute path of the agent's socket"}
	}
	return c, nil
}

// tell returns err as it is printed.
func tell(err error) (printed []byte, failed bool) {
	var e *wire.Error
	if !errors.As(err, &e) {
		e = &wire.Error{Code: codeInternal, Message: err.Error()}
	}
	printed, err = json.Marshal(e)
	if err != nil {
		panic("bug: a CNI error cannot be written: " + err.Error())
	}
	return append(printed, '\n'), true
}

// ask has the agent carry out call, or does what can be done without it.
func (c *conf) ask(call *wire.Call) (printed []byte, failed bool) {
	deadline := time.Now().Add(patience)
	printed, failed, err := c.exchange(call)
	if err != nil && !json.Valid(call.Config) { // otherwise the agent says so
		return tell(&wire.Error{Code: codeDecoding, Message: "network configuration", Details: "it is not JSON"})
	}
	for call.Command == wire.Add && nobody(err) && time.Now().Before(deadline) {
		time.Sleep(knocks)
		printed, failed, err = c.exchange(call)
	}
	if err == nil {
		return printed, failed
	}
	const absent = "the Korat agent does not answer on this node; is it running?"
	switch call.Command {
	case wire.Del:
		if err := c.bury(call); err != nil {
			return tell(err)
		}
		return nil, false
	case wire.Status:
		return tell(&wire.Error{Code: codeNotAvailable, Message: absent, Details: err.Error()})
	case wire.Add, wire.Check, wire.GC:
		return tell(&wire.Error{Code: codeTryLater, Message: absent, Details: err.Error()})
	}
	return tell(&wire.Error{Code: codeEnvironment, Message: "unknown " + wire.EnvCommand + ": " + string(call.Command)})
}

// nobody reports whether err says that nobody listens.
func nobody(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED)
}

// exchange sends call to the agent and returns its answer.
func (c *conf) exchange(call *wire.Call) (printed []byte, failed bool, err error) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, false, os.NewSyscallError("socket", err)
	}
	agent := os.NewFile(uintptr(fd), c.Socket)
	defer agent.Close()
	if err := syscall.Connect(fd, &syscall.SockaddrUnix{Name: c.Socket}); err != nil {
		return nil, false, &os.PathError{Op: "connect", Path: c.Socket, Err: err}
	}
	if err := call.Send(agent); err != nil {
		return nil, false, err
	}
	return wire.ReceiveAnswer(agent)
}

// bury leaves the DEL of call for the agent's next start. The name is free of
// separators: container IDs and interface names have none.
func (c *conf) bury(call *wire.Call) error {
	if call.ContainerID == "" || call.IfName == "" {
		return &wire.Error{Code: codeEnvironment, Message: wire.EnvContainerID + " or " + wire.EnvIfName + " is missing"}
	}
	err := json.Unmarshal(call.Config, c)
	dir := filepath.Join(filepath.Dir(c.Socket), wire.TombstoneDir)
	var data []byte
	if err == nil {
		data, err = json.Marshal(call.Request(c.Name))
	}
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	name := filepath.Join(dir, filepath.Base(call.ContainerID)+"."+filepath.Base(call.IfName))
	if err == nil {
		err = os.WriteFile(name+"~", data, 0o600)
	}
	if err == nil {
		err = os.Rename(name+"~", name)
	}
	if err != nil {
		return &wire.Error{Code: codeIO, Message: "no agent runs, and the request cannot be left for it", Details: err.Error()}
	}
	return nil
}
