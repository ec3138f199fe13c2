package xtables

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/policy/ir"
)

// layout is what differs between struct ipt_entry and struct ip6t_entry
// (linux/netfilter_ipv4/ip_tables.h and its sister), and how they are asked for.
type layout struct {
	socket, level int
	entry         int    // size of the fixed part
	offsets       int    // where the 16-bit offsets of target and next entry stand
	names         string // file that lists the tables
}

func layoutOf(f ir.Family) layout {
	switch f {
	case ir.IPv4:
		return layout{unix.AF_INET, unix.IPPROTO_IP, 112, 88, "/proc/thread-self/net/ip_tables_names"}
	case ir.IPv6:
		return layout{unix.AF_INET6, unix.IPPROTO_IPV6, 168, 140, "/proc/thread-self/net/ip6_tables_names"}
	}
	panic(bad(f))
}

// Socket options of both families, and sizes of struct ipt_getinfo, of the head
// of struct ipt_get_entries, of struct xt_entry_match and of a table's name.
const (
	optInfo    = 64
	optEntries = 65
	infoSize   = 84
	headSize   = 40
	matchSize  = 32
	nameSize   = 32
)

// HasLegacy reports whether the table exists in the network namespace of this
// thread. To ask for one that does not would make it.
func HasLegacy(f ir.Family, table string) bool {
	names, err := os.ReadFile(layoutOf(f).names)
	if err != nil {
		return false // the file is not there without the module
	}
	return slices.Contains(strings.Fields(string(names)), table)
}

// Legacy reads a table of the older flavour in the network namespace of this
// thread; one that nobody has made is empty. It tells the same chains as NFT.Table.
func Legacy(f ir.Family, table string, own func(chain string) bool) ([]Chain, error) {
	if !HasLegacy(f, table) {
		return nil, nil
	}
	l := layoutOf(f)
	fd, err := unix.Socket(l.socket, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return nil, fmt.Errorf("open raw socket: %w", err)
	}
	defer unix.Close(fd)
	for range legacyAttempts {
		info := make([]byte, infoSize)
		copy(info[:nameSize-1], table)
		if err := getsockopt(fd, l.level, optInfo, info); err != nil {
			return nil, fmt.Errorf("ask for table %s: %w", table, err)
		}
		size := binary.NativeEndian.Uint32(info[80:])
		entries := make([]byte, headSize+int(size))
		copy(entries[:nameSize-1], table)
		binary.NativeEndian.PutUint32(entries[nameSize:], size)
		err := getsockopt(fd, l.level, optEntries, entries)
		if errors.Is(err, unix.EAGAIN) {
			continue // it was replaced meanwhile, by one of another size
		}
		if err != nil {
			return nil, fmt.Errorf("read table %s: %w", table, err)
		}
		chains, err := l.parse(info, entries[headSize:])
		return slices.DeleteFunc(chains, func(c Chain) bool { return !c.Builtin && !own(c.Name) }), err
	}
	return nil, fmt.Errorf("read table %s: it changed %d times meanwhile", table, legacyAttempts)
}

const legacyAttempts = 10

// getsockopt is for options that read what they are to answer from the buffer.
func getsockopt(fd, level, option int, buf []byte) error {
	size := uint32(len(buf))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(&buf[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// parse walks the entries of a table. A built-in chain begins where info says; any
// other begins with an entry whose target is ERROR and that holds its name, and so
// does the end of the table. The last entry of every chain is its policy.
func (l layout) parse(info, entries []byte) ([]Chain, error) {
	builtin := map[int]string{}
	valid := binary.NativeEndian.Uint32(info[32:])
	for i, name := range hookNames {
		if valid&(1<<i) != 0 {
			builtin[int(binary.NativeEndian.Uint32(info[36+4*i:]))] = name
		}
	}
	var chains []Chain
	for at := 0; at < len(entries); {
		rest := entries[at:]
		if len(rest) < l.entry {
			return nil, errBroken
		}
		target := int(binary.NativeEndian.Uint16(rest[l.offsets:]))
		next := int(binary.NativeEndian.Uint16(rest[l.offsets+2:]))
		if target < l.entry || next < target+matchSize || next > len(rest) {
			return nil, errBroken
		}
		if name, ok := builtin[at]; ok {
			chains = append(chains, Chain{Name: name, Builtin: true})
		}
		switch {
		case text(rest[target+2:target+31]) == "ERROR":
			chains = append(chains, Chain{Name: text(rest[target+matchSize : next])})
		case len(chains) == 0:
			return nil, errBroken
		default:
			c := &chains[len(chains)-1]
			c.Rules = append(c.Rules, legacyRule(rest[l.entry:target]))
		}
		at += next
	}
	return withoutPolicies(chains)
}

// withoutPolicies takes off each chain's last entry, and the end of the table.
func withoutPolicies(chains []Chain) ([]Chain, error) {
	if len(chains) == 0 {
		return nil, errBroken
	}
	chains = chains[:len(chains)-1]
	for i := range chains {
		n := len(chains[i].Rules)
		if n == 0 {
			return nil, errBroken
		}
		chains[i].Rules = chains[i].Rules[:n-1]
	}
	return chains, nil
}

// legacyRule reads the matches of a rule.
func legacyRule(matches []byte) Rule {
	var r Rule
	for len(matches) >= matchSize {
		size := int(binary.NativeEndian.Uint16(matches))
		if size < matchSize || size > len(matches) {
			break
		}
		r.match(text(matches[2:31]), matches[matchSize:size])
		matches = matches[size:]
	}
	return r
}

// text is what stands before the first NUL.
func text(b []byte) string {
	if end := bytes.IndexByte(b, 0); end >= 0 {
		b = b[:end]
	}
	return string(b)
}
