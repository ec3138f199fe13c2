package nftables

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// Field is one part of the keys of a set or map.
type Field uint8

// The fields. Their keys are made by Addr or Net, Protocol, Port, Interface and
// Mark.
const (
	IPv4Addr Field = iota + 1
	IPv6Addr
	L4Proto
	L4Port
	IfName
	MetaMark
)

// layout is how the kernel and nft know a field: its number among the data types
// of nft, by which `nft list` prints it, and its length in bytes.
var layout = map[Field]struct{ magic, size uint32 }{
	IPv4Addr: {7, 4}, IPv6Addr: {8, 16}, L4Proto: {12, 1}, L4Port: {13, 2}, IfName: {41, unix.IFNAMSIZ}, MetaMark: {19, 4},
}

// Key is a key of a set or map in the kernel's own form. Keys of several fields
// are made by Join. Members of an Interval set are followed by one more byte, the
// length of the prefix.
type Key string

// Addr is the key of an address: of field IPv4Addr or IPv6Addr, as it is one.
func Addr(a netip.Addr) Key {
	if a.Is4() {
		b := a.As4()
		return Key(b[:])
	}
	b := a.As16()
	return Key(b[:])
}

// Protocol is the key of an IP protocol number.
func Protocol(p uint8) Key { return Key([]byte{p}) }

// Port is the key of a port number.
func Port(p uint16) Key { return Key(binary.BigEndian.AppendUint16(nil, p)) }

// Interface is the key of an interface by name.
func Interface(name string) Key {
	var b [unix.IFNAMSIZ]byte
	copy(b[:unix.IFNAMSIZ-1], name)
	return Key(b[:])
}

// Mark is the key of a packet mark.
func Mark(m uint32) Key { return Key(binary.NativeEndian.AppendUint32(nil, m)) }

// Join is the key that consists of fields, each padded to whole registers of
// four bytes as in the kernel.
func Join(fields ...Key) Key {
	var b strings.Builder
	for _, f := range fields {
		b.WriteString(string(f))
		for n := len(f); n%4 != 0; n++ {
			b.WriteByte(0)
		}
	}
	return Key(b.String())
}

// Net is the member of an Interval set of addresses that holds a prefix.
func Net(p netip.Prefix) Key {
	p = p.Masked()
	return Addr(p.Addr()) + Key([]byte{byte(p.Bits())})
}

// Ports are the members of an Interval set of ports that together hold the
// numbers from first to last.
func Ports(first, last uint16) []Key {
	var all []Key
	for from, to := uint32(first), uint32(last); from <= to; {
		bits := byte(16)
		size := uint32(1)
		for bits > 0 && from%(size*2) == 0 && from+size*2-1 <= to {
			bits, size = bits-1, size*2
		}
		all = append(all, Port(uint16(from))+Key([]byte{bits}))
		from += size
	}
	return all
}

// String prints k as a message does: the name of an interface as it is, all else
// as hexadecimal bytes, because what they mean depends on the set.
func (k Key) String() string {
	name := strings.TrimRight(string(k), "\x00")
	if len(k) == unix.IFNAMSIZ && name != "" && strings.IndexFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) < 0 {
		return name
	}
	return fmt.Sprintf("%x", string(k))
}
