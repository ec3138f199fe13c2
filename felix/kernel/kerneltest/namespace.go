// Package kerneltest gives tests of the kernel side a kernel of their own: fresh
// network namespaces, joined by veth pairs, that vanish with the test. It needs
// root. Nothing here moves the test's own goroutine to another namespace.
package kerneltest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// commandTime bounds what Run waits for a command.
const commandTime = 30 * time.Second

// Namespace is a network namespace of the test.
type Namespace struct {
	*netlink.Handle // bound to the namespace

	t  testing.TB
	fd netns.NsHandle
}

// New makes a network namespace that holds nothing but lo, which is up.
func New(t testing.TB) *Namespace {
	t.Helper()
	n := &Namespace{t: t, fd: netns.None()}
	onThread(t, func() {
		fd, err := netns.New() // moves the thread into it
		if err != nil {
			t.Fatalf("make network namespace (tests of the kernel side need root): %v", err)
		}
		n.fd = fd
	})
	t.Cleanup(func() { n.fd.Close() })
	h, err := netlink.NewHandleAt(n.fd)
	if err != nil {
		t.Fatalf("netlink handle: %v", err)
	}
	t.Cleanup(h.Close)
	n.Handle = h
	n.Up("lo")
	return n
}

// Path names the namespace for programs that are given a path, while the test runs.
func (n *Namespace) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(n.fd)) }

// Do runs f on a thread inside the namespace and waits for it. f may end the
// test. Sockets that f opens stay bound to the namespace.
func (n *Namespace) Do(f func()) {
	n.t.Helper()
	onThread(n.t, func() {
		if err := netns.Set(n.fd); err != nil {
			n.t.Fatalf("enter network namespace: %v", err)
		}
		f()
	})
}

// onThread runs f on a thread that is thrown away afterwards, because f moves it
// to another namespace.
func onThread(t testing.TB, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // without Unlock: the runtime ends the thread
		f()
	}()
	if <-done; t.Failed() {
		t.FailNow()
	}
}

// Run runs a command in the namespace and returns its output; a command that
// fails ends the test.
func (n *Namespace) Run(name string, args ...string) string {
	n.t.Helper()
	out, err := n.Try(name, args...)
	if err != nil {
		n.t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return out
}

// Try is Run for commands that may fail.
func (n *Namespace) Try(name string, args ...string) (out string, err error) {
	n.t.Helper()
	n.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), commandTime)
		defer cancel()
		var b []byte
		b, err = exec.CommandContext(ctx, name, args...).CombinedOutput()
		out = string(b)
	})
	return out, err
}

// Up brings an interface up.
func (n *Namespace) Up(name string) {
	n.t.Helper()
	if err := n.LinkSetUp(n.Link(name)); err != nil {
		n.t.Fatalf("bring %s up: %v", name, err)
	}
}

// Down brings an interface down.
func (n *Namespace) Down(name string) {
	n.t.Helper()
	if err := n.LinkSetDown(n.Link(name)); err != nil {
		n.t.Fatalf("bring %s down: %v", name, err)
	}
}

// Link returns an interface, which must exist.
func (n *Namespace) Link(name string) netlink.Link {
	n.t.Helper()
	l, err := n.LinkByName(name)
	if err != nil {
		n.t.Fatalf("interface %s: %v", name, err)
	}
	return l
}

// Remove deletes an interface.
func (n *Namespace) Remove(name string) {
	n.t.Helper()
	if err := n.LinkDel(n.Link(name)); err != nil {
		n.t.Fatalf("delete %s: %v", name, err)
	}
}

// Veth joins two namespaces by a veth pair, of which both ends are down.
func Veth(a *Namespace, nameA string, b *Namespace, nameB string) {
	a.t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = nameA
	err := a.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: nameB, PeerNamespace: netlink.NsFd(b.fd)})
	if err != nil {
		a.t.Fatalf("veth %s-%s: %v", nameA, nameB, err)
	}
}

// Pod makes a namespace whose eth0 is joined to hostName in host. Both ends are
// up, and nothing has an address: that is a pod before its network was set up.
func Pod(host *Namespace, hostName string) *Namespace {
	host.t.Helper()
	pod := New(host.t)
	Veth(host, hostName, pod, "eth0")
	host.Up(hostName)
	pod.Up("eth0")
	return pod
}

// Eventually waits until ok says true, looking every few milliseconds.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within a minute", what)
		}
	}
}
