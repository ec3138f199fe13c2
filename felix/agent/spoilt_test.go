package agent

import (
	"testing"
	"time"

	"github.com/koratnet/korat/felix/pathmtu"
)

func TestWhatIsSaidOfDevicesThatSpoilPackets(t *testing.T) {
	all := pathmtu.Train{Segments: 48, Came: 48, Took: 1234567}
	for want, o := range map[string]pathmtu.Offload{
		"packets whose checksums a device makes do not reach b1, and others do":             {Node: "b1"},
		"large packets that a device cuts do not reach b1, and others do":                   {Node: "b1", Segments: true},
		"of large packets that a device cuts 12 of 48 segments reach b1, and of others 48":  {Node: "b1", Segments: true, Trains: pathmtu.Trains{Finished: all, Cut: pathmtu.Train{Segments: 48, Came: 12}}},
		"large packets that a device cuts take 800ms to b1, and others 1.235ms for as much": {Node: "b1", Segments: true, Trains: pathmtu.Trains{Finished: all, Cut: pathmtu.Train{Segments: 48, Came: 48, Took: 800 * time.Millisecond}}},
	} {
		if got := spoilt(o); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
