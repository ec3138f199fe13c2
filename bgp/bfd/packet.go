package bfd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// State is that of a session, as it is on the wire.
type State uint8

// The states of RFC 5880 section 4.1.
const (
	AdminDown State = iota
	Down
	Init
	Up
)

// String returns the state's name in the RFC.
func (s State) String() string {
	if names := [...]string{"AdminDown", "Down", "Init", "Up"}; int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// Diag says why a session is in its state.
type Diag uint8

// The diagnostics that this package gives itself.
const (
	NoDiag       Diag = 0
	TimeExpired  Diag = 1 // nothing was heard for the detection time
	NeighborDown Diag = 3 // the neighbour said that its side is down
	AdminDowned  Diag = 7 // somebody took the session down on purpose
)

var diagWords = [...]string{
	"no diagnostic", "detection time expired", "echo failed", "neighbour signalled down", "forwarding plane reset",
	"path down", "concatenated path down", "administratively down", "reverse concatenated path down",
}

// String returns the diagnostic in words.
func (d Diag) String() string {
	if int(d) < len(diagWords) {
		return diagWords[d]
	}
	return fmt.Sprintf("diagnostic %d", uint8(d))
}

// Packet is a BFD control packet without authentication.
type Packet struct {
	State State
	Diag  Diag
	// Poll asks for a Final, Final answers a Poll.
	Poll, Final bool
	// Independent: the sender's BFD goes on when its control plane restarts (the C bit).
	Independent bool
	// Demand: the other side is to send no periodic packets while both are Up.
	Demand     bool
	Multiplier uint8
	// Mine is the sender's discriminator, Yours the receiver's as far as the sender
	// knows it, else 0.
	Mine, Yours uint32
	// DesiredTx, RequiredRx and RequiredEchoRx are the shortest intervals at which
	// the sender wants to send, can receive, and can receive echoes, in whole
	// microseconds below 2^32. A RequiredRx of 0 asks for no periodic packets, a
	// RequiredEchoRx of 0 for no echo.
	DesiredTx, RequiredRx, RequiredEchoRx time.Duration
}

const (
	version    = 1
	packetSize = 24
)

// The bits of the second byte, below the state.
const (
	bitPoll = 1 << (5 - iota)
	bitFinal
	bitIndependent
	bitAuth
	bitDemand
	bitMultipoint
)

// The reasons to drop a packet; made once, as a flood may ask for them.
var (
	errVersion       = errors.New("bfd: version is not 1")
	errLength        = errors.New("bfd: length does not fit")
	errMultiplier    = errors.New("bfd: detection multiplier is 0")
	errMultipoint    = errors.New("bfd: multipoint bit is set")
	errAuth          = errors.New("bfd: authentication is not in use")
	errDiscriminator = errors.New("bfd: discriminator is 0")
)

// Parse reads a control packet and checks what RFC 5880 section 6.8.6 demands of
// one without regard to sessions. b may be longer than the packet.
func Parse(b []byte) (Packet, error) {
	switch {
	case len(b) < packetSize || int(b[3]) < packetSize || int(b[3]) > len(b):
		return Packet{}, errLength
	case b[0]>>5 != version:
		return Packet{}, errVersion
	case b[2] == 0:
		return Packet{}, errMultiplier
	case b[1]&bitMultipoint != 0:
		return Packet{}, errMultipoint
	case b[1]&bitAuth != 0:
		return Packet{}, errAuth
	}
	p := Packet{
		Diag: Diag(b[0] & 0x1f), State: State(b[1] >> 6),
		Poll: b[1]&bitPoll != 0, Final: b[1]&bitFinal != 0, Independent: b[1]&bitIndependent != 0, Demand: b[1]&bitDemand != 0,
		Multiplier: b[2],
		Mine:       binary.BigEndian.Uint32(b[4:]), Yours: binary.BigEndian.Uint32(b[8:]),
		DesiredTx: interval(b[12:]), RequiredRx: interval(b[16:]), RequiredEchoRx: interval(b[20:]),
	}
	if p.Mine == 0 || p.Yours == 0 && p.State != Down && p.State != AdminDown {
		return Packet{}, errDiscriminator
	}
	return p, nil
}

// Append appends the packet as it is on the wire.
func (p Packet) Append(b []byte) []byte {
	flags := byte(p.State) << 6
	for _, f := range [...]struct {
		bit byte
		on  bool
	}{{bitPoll, p.Poll}, {bitFinal, p.Final}, {bitIndependent, p.Independent}, {bitDemand, p.Demand}} {
		if f.on {
			flags |= f.bit
		}
	}
	b = append(b, version<<5|byte(p.Diag)&0x1f, flags, p.Multiplier, packetSize)
	b = binary.BigEndian.AppendUint32(b, p.Mine)
	b = binary.BigEndian.AppendUint32(b, p.Yours)
	for _, d := range [...]time.Duration{p.DesiredTx, p.RequiredRx, p.RequiredEchoRx} {
		b = binary.BigEndian.AppendUint32(b, uint32(d/time.Microsecond))
	}
	return b
}

func interval(b []byte) time.Duration {
	return time.Duration(binary.BigEndian.Uint32(b)) * time.Microsecond
}
