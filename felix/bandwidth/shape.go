package bandwidth

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/kernel/nlsock"
)

// errNoShaper: the kernel has no tbf.
var errNoShaper = errors.New("this kernel has no queueing discipline tbf")

// Of linux/pkt_sched.h and linux/rtnetlink.h, which golang.org/x/sys/unix lacks.
const (
	atRoot      = 0xffffffff // TC_H_ROOT
	ethernet    = 1          // TC_LINKLAYER_ETHERNET
	attrKind    = 1          // TCA_KIND
	attrOptions = 2          // TCA_OPTIONS
	tbfParms    = 1          // TCA_TBF_PARMS
	tbfRate64   = 4          // TCA_TBF_RATE64
	tbfBurst    = 6          // TCA_TBF_BURST
	sizeofTC    = 20         // struct tcmsg
	sizeofTBF   = 36         // struct tc_tbf_qopt
	sizeofSpec  = 12         // struct tc_ratespec, of which tc_tbf_qopt has two
)

// ours is the handle of our disciplines: 6b6f:0.
const ours = 0x6b6f0000

// longest is how long, in milliseconds, a packet waits at most. What comes then is
// dropped, and TCP learns the rate.
const longest = 50

// shape gives the interface a token bucket of so many bits a second, and writes
// nothing when it has it. It returns errNoShaper, or an error that wraps ENODEV.
func shape(conn *nlsock.Conn, iface string, bits uint64) error {
	index, err := indexOf(conn, iface)
	if err != nil {
		return err
	}
	has, err := shaped(conn, index, bits/8)
	if has || err != nil {
		return err
	}
	r := nlsock.NewRequest(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, header(index, ours, atRoot))
	switch err := conn.Do(tokenBucket(r, bits)); {
	case errors.Is(err, unix.ENOENT): // kinds that it does not know
		return errNoShaper
	case err != nil:
		return fmt.Errorf("shape %s: %w", iface, err)
	}
	return nil
}

func indexOf(conn *nlsock.Conn, iface string) (index uint32, err error) {
	r := nlsock.NewRequest(unix.RTM_GETLINK, 0, make([]byte, unix.SizeofIfInfomsg)).String(unix.IFLA_IFNAME, iface)
	err = conn.Get(r, func(body []byte) error {
		if len(body) >= unix.SizeofIfInfomsg {
			index = binary.NativeEndian.Uint32(body[4:])
		}
		return nil
	})
	return index, err
}

// header is a struct tcmsg about the root of an interface.
func header(index, handle, parent uint32) []byte {
	h := make([]byte, sizeofTC)
	binary.NativeEndian.PutUint32(h[4:], index)
	binary.NativeEndian.PutUint32(h[8:], handle)
	binary.NativeEndian.PutUint32(h[12:], parent)
	return h
}

// tokenBucket says to r what the discipline is.
func tokenBucket(r *nlsock.Request, bits uint64) *nlsock.Request {
	bytes := bits / 8
	parms := make([]byte, sizeofTBF)
	parms[1] = ethernet
	binary.NativeEndian.PutUint32(parms[8:], uint32(min(bytes, math.MaxUint32)))
	queue := min(bytes*longest/1000+uint64(burst(bits)), math.MaxUint32)
	binary.NativeEndian.PutUint32(parms[2*sizeofSpec:], uint32(queue))
	r.String(attrKind, "tbf")
	return r.Nest(attrOptions, func() {
		r.Attr(tbfParms, parms)
		if bytes > math.MaxUint32 {
			r.Attr(tbfRate64, binary.NativeEndian.AppendUint64(nil, bytes))
		}
		r.Uint32(tbfBurst, burst(bits))
	})
}

// shaped reports whether the interface has our discipline with that rate.
func shaped(conn *nlsock.Conn, index uint32, bytes uint64) (has bool, err error) {
	r := nlsock.NewRequest(unix.RTM_GETQDISC, 0, header(index, 0, 0))
	err = conn.Dump(r, func() { has = false }, func(_ uint16, body []byte) error {
		if len(body) < sizeofTC || binary.NativeEndian.Uint32(body[4:]) != index || binary.NativeEndian.Uint32(body[8:]) != ours {
			return nil
		}
		has = rateOf(body[sizeofTC:]) == bytes
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("read queueing disciplines: %w", err)
	}
	return has, nil
}

// rateOf returns the bytes a second of a tbf, 0 of what is none.
func rateOf(attrs []byte) (rate uint64) {
	for kind, value := range nlsock.Attrs(attrs) {
		if kind == attrKind && nlsock.Text(value) != "tbf" {
			return 0
		}
		if kind != attrOptions {
			continue
		}
		for kind, value := range nlsock.Attrs(value) {
			switch {
			case kind == tbfParms && len(value) >= sizeofTBF && rate == 0:
				rate = uint64(binary.NativeEndian.Uint32(value[8:]))
			case kind == tbfRate64 && len(value) >= 8:
				rate = binary.NativeEndian.Uint64(value)
			}
		}
	}
	return rate
}

// burst is how many bytes a token bucket lets pass at once: those of a tenth of a
// second, which is as long as an idle host may sleep.
func burst(bits uint64) uint32 {
	return uint32(min(max(bits/8/10, leastBurst), math.MaxUint32))
}
