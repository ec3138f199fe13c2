package gobgp

import (
	"net/netip"
	"testing"
	"time"
)

func TestANeighbourCannotFillTheLog(t *testing.T) {
	l := &logLimit{m: map[netip.Addr]*logWindow{}}
	bad, good := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	start := time.Unix(1000, 0)
	written := 0
	for i := range 1000 {
		if _, ok := l.allow(bad, start.Add(time.Duration(i)*time.Millisecond)); ok {
			written++
		}
	}
	if written != logLines {
		t.Errorf("%d lines written, want %d", written, logLines)
	}
	if _, ok := l.allow(good, start.Add(time.Second)); !ok {
		t.Error("another neighbour's line was left out")
	}
	if n, ok := l.allow(bad, start.Add(logPeriod)); !ok || n != 1000-logLines {
		t.Errorf("after a while: written %t, told of %d lines left out, want %d", ok, n, 1000-logLines)
	}
}
