package nlsock

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Family is the number of an address family.
func Family(is6 bool) uint8 {
	if is6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// Unspecified is the address that stands for all of a family, which messages leave out.
func Unspecified(family uint8) netip.Addr {
	if family == unix.AF_INET6 {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

// Bytes are those of one of the kernel's structs, of which none has a pointer. They are
// the struct itself, no copy.
func Bytes[T unix.RtMsg | unix.RtNexthop | unix.IfInfomsg | unix.NdMsg](v *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v))
}
