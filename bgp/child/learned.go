package child

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"github.com/koratnet/korat/bgp"
)

// A frame of what the neighbours say, on the wire: flags, the number of prefixes,
// then each prefix with its next hops. JSON would cost several times what the
// speaker itself needs for a full table.
const (
	flagSynced  = 1
	flagWeights = 4
)

// most is more than a frame can hold.
const most = 1 << 20

var errFrame = errors.New("learned: frame does not parse, expected one of the same version")

func writeFrame(w *bufio.Writer, changed []bgp.Learned, synced bool) error {
	var flags byte
	if synced {
		flags = flagSynced
	}
	out := append(make([]byte, 0, 16+24*len(changed)), flags)
	out = binary.AppendUvarint(out, uint64(len(changed)))
	for _, l := range changed {
		out = appendLearned(out, l)
	}
	if _, err := w.Write(out); err != nil {
		return fmt.Errorf("learned: %w", err)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("learned: %w", err)
	}
	return nil
}

func appendLearned(out []byte, l bgp.Learned) []byte {
	var flags byte
	if l.Weights != nil {
		flags |= flagWeights
	}
	out = append(out, flags, byte(l.Prefix.Bits()))
	out = appendAddr(out, l.Prefix.Addr())
	out = binary.AppendUvarint(out, uint64(len(l.NextHops)))
	for i, a := range l.NextHops {
		out = appendAddr(out, a)
		if l.Weights != nil {
			out = append(out, l.Weights[i])
		}
	}
	return out
}

// appendAddr writes the length of an address, zone included, and its bytes.
func appendAddr(out []byte, a netip.Addr) []byte {
	text, err := a.MarshalBinary()
	if err != nil || len(text) > 255 {
		panic("bug: address " + a.String() + " has a zone that no interface can have")
	}
	return append(append(out, byte(len(text))), text...)
}

func readFrame(r *bufio.Reader) (changed []bgp.Learned, synced bool, err error) {
	flags, err := r.ReadByte()
	if err != nil {
		return nil, false, fmt.Errorf("learned: %w", err)
	}
	n, err := binary.ReadUvarint(r)
	if err != nil || n > most {
		return nil, false, errors.Join(errFrame, err)
	}
	changed = make([]bgp.Learned, 0, min(n, pathsPerCall))
	for range n {
		l, err := readLearned(r)
		if err != nil {
			return nil, false, errors.Join(errFrame, err)
		}
		changed = append(changed, l)
	}
	return changed, flags&flagSynced != 0, nil
}

func readLearned(r *bufio.Reader) (bgp.Learned, error) {
	flags, err := r.ReadByte()
	if err != nil {
		return bgp.Learned{}, err
	}
	bits, err := r.ReadByte()
	if err != nil {
		return bgp.Learned{}, err
	}
	addr, err := readAddr(r)
	if err != nil {
		return bgp.Learned{}, err
	}
	l := bgp.Learned{Prefix: netip.PrefixFrom(addr, int(bits))}
	n, err := binary.ReadUvarint(r)
	if err != nil || n > most || !l.Prefix.IsValid() {
		return bgp.Learned{}, errors.Join(errFrame, err)
	}
	for range n {
		hop, err := readAddr(r)
		if err != nil {
			return bgp.Learned{}, err
		}
		l.NextHops = append(l.NextHops, hop)
		if flags&flagWeights != 0 {
			weight, err := r.ReadByte()
			if err != nil {
				return bgp.Learned{}, err
			}
			l.Weights = append(l.Weights, weight)
		}
	}
	return l, nil
}

func readAddr(r *bufio.Reader) (netip.Addr, error) {
	n, err := r.ReadByte()
	if err != nil {
		return netip.Addr{}, err
	}
	var buf [255]byte
	if _, err := io.ReadFull(r, buf[:n]); err != nil {
		return netip.Addr{}, err
	}
	var a netip.Addr
	err = a.UnmarshalBinary(buf[:n])
	return a, err
}
