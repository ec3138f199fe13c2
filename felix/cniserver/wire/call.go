package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
)

// Call is what the container runtime gave the plugin, as it is.
type Call struct {
	Command       Command
	ContainerID   string
	Netns         string // path; may be empty in DEL
	IfName        string
	Args          string // K8S_POD_NAME=web;...
	Path          string
	NetnsOverride string
	Config        []byte // standard input: the plugin's part of a conflist
	// Assigned is the result of another plugin for IPAM, in ADD. Empty: Korat assigns.
	Assigned []byte
}

// The environment variables of a call.
const (
	EnvCommand       = "CNI_COMMAND"
	EnvContainerID   = "CNI_CONTAINERID"
	EnvNetns         = "CNI_NETNS"
	EnvIfName        = "CNI_IFNAME"
	EnvArgs          = "CNI_ARGS"
	EnvPath          = "CNI_PATH"
	EnvNetnsOverride = "CNI_NETNS_OVERRIDE"
)

// Request returns what c asks for in the network of that name.
func (c *Call) Request(network string) Request {
	r := Request{Command: c.Command, Network: network, ContainerID: c.ContainerID, Netns: c.Netns, IfName: c.IfName, Pod: c.ContainerID}
	for pair := range strings.SplitSeq(c.Args, ";") {
		switch k, v, _ := strings.Cut(pair, "="); k {
		case "K8S_POD_NAMESPACE":
			r.Namespace = v
		case "K8S_POD_NAME":
			r.Pod = v
		case "K8S_POD_UID":
			r.PodUID = v
		}
	}
	return r
}

// A message is its length and its bytes. Those of a call are its fields, with a zero
// byte in between: neither the environment nor JSON has one. Those of an answer are
// a byte, zero for success, and what is to be printed.
const (
	lengthBytes = 4
	maxBytes    = 16 << 20
)

var errForeign = errors.New("the other side speaks otherwise: is it of another version?")

// fields are those of c, in the order in which they are sent.
func (c *Call) fields() []*string {
	return []*string{(*string)(&c.Command), &c.ContainerID, &c.Netns, &c.IfName, &c.Args, &c.Path, &c.NetnsOverride}
}

// Send sends c.
func (c *Call) Send(w io.Writer) error {
	m := make([]byte, lengthBytes, lengthBytes+1024+len(c.Config)+len(c.Assigned))
	for _, f := range c.fields() {
		m = append(append(m, *f...), 0)
	}
	m = append(append(m, c.Config...), 0)
	return send(w, append(m, c.Assigned...))
}

// Receive reads a call.
func (c *Call) Receive(r io.Reader) error {
	m, err := receive(r)
	if err != nil {
		return err
	}
	strs := c.fields()
	parts := bytes.Split(m, []byte{0})
	if len(parts) != len(strs)+2 {
		return errForeign
	}
	for i, f := range strs {
		*f = string(parts[i])
	}
	c.Config, c.Assigned = parts[len(strs)], parts[len(strs)+1]
	return nil
}

// SendAnswer sends what the plugin is to print.
func SendAnswer(w io.Writer, printed []byte, failed bool) error {
	m := make([]byte, lengthBytes+1, lengthBytes+1+len(printed))
	if failed {
		m[lengthBytes] = 1
	}
	return send(w, append(m, printed...))
}

// ReceiveAnswer reads what the plugin is to print.
func ReceiveAnswer(r io.Reader) (printed []byte, failed bool, err error) {
	m, err := receive(r)
	if err != nil || len(m) == 0 {
		return nil, false, errors.Join(err, errForeign)
	}
	return m[1:], m[0] != 0, nil
}

// send sends m, which begins with room for its length, in one piece.
func send(w io.Writer, m []byte) error {
	binary.BigEndian.PutUint32(m, uint32(len(m)-lengthBytes))
	_, err := w.Write(m)
	return err
}

// receive reads a message, as a rule at once.
func receive(r io.Reader) ([]byte, error) {
	m := make([]byte, 4096)
	n, err := io.ReadAtLeast(r, m, lengthBytes)
	if err != nil {
		return nil, err
	}
	size := int(binary.BigEndian.Uint32(m))
	if size > maxBytes || n > lengthBytes+size {
		return nil, errForeign
	}
	if size+lengthBytes <= len(m) {
		m = m[:lengthBytes+size]
	} else {
		m = append(m, make([]byte, lengthBytes+size-len(m))...)
	}
	if _, err := io.ReadFull(r, m[n:]); err != nil {
		return nil, err
	}
	return m[lengthBytes:], nil
}
