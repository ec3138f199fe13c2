package tunnel

import (
	"fmt"
	"maps"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/desired"
)

// Offload says whether packets leave through a tunnel unfinished: with checksums left
// to the device that sends them, and large ones whole.
type Offload struct {
	On  bool
	Why string // in words; empty: nobody asked for anything else than the kernel's choice
}

// The reasons that are not those of Distrust.
const (
	configured = "a NodeConfiguration says so"
	foundOff   = "it was so already; enabled once in a NodeConfiguration, it is tried again"
)

// Distrust says that unfinished packets do not arrive, and why that is believed. From
// the next Apply on that looks at the interface the kernel finishes them, unless the
// settings say otherwise. It reports whether that is news, and is safe for concurrent
// use.
func (r *Reconciler) Distrust(kind desired.TunnelKind, why string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.distrust[kind]; known {
		return false
	}
	r.distrust[kind] = why
	return true
}

// Offloads says it of the tunnels that are there. It is safe for concurrent use.
func (r *Reconciler) Offloads() map[desired.TunnelKind]Offload {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.offloads)
}

// setOffload makes the interface leave to devices what it may.
func (r *Reconciler) setOffload(kind desired.TunnelKind) error {
	on, err := r.sums(kind.Device(), unix.ETHTOOL_GTXCSUM, false)
	if err != nil {
		return fmt.Errorf("read what is left to devices: %w", err)
	}
	r.mu.Lock()
	want := r.judge(kind, on)
	r.mu.Unlock()
	if want.On != on {
		if _, err := r.sums(kind.Device(), unix.ETHTOOL_STXCSUM, want.On); err != nil {
			return fmt.Errorf("change what is left to devices: %w", err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.offloads[kind] = want
	return nil
}

// judge says what the interface is to do that does or does not leave anything to
// devices. It is called with mu held.
func (r *Reconciler) judge(kind desired.TunnelKind, on bool) Offload {
	why, spoilt := r.distrust[kind]
	switch {
	case r.offload == desired.OffloadOn:
		delete(r.distrust, kind) // it was changed, and is tried again
		return Offload{On: true, Why: configured}
	case r.offload == desired.OffloadOff:
		return Offload{Why: configured}
	case spoilt:
		return Offload{Why: why}
	case !on:
		return Offload{Why: foundOff}
	}
	return Offload{On: true}
}

// sums reads or changes whether devices make the checksums of what leaves through an
// interface. Without them the kernel also cuts large packets itself.
func (r *Reconciler) sums(name string, command uint32, on bool) (bool, error) {
	value := struct{ command, data uint32 }{command: command}
	if on {
		value.data = 1
	}
	request := struct {
		name  [unix.IFNAMSIZ]byte
		value unsafe.Pointer
		_     [16]byte // the kernel's struct is as large as the largest of a union
	}{value: unsafe.Pointer(&value)}
	copy(request.name[:unix.IFNAMSIZ-1], name)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(r.ethtool), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	if errno != 0 {
		return false, errno
	}
	return value.data != 0, nil
}
