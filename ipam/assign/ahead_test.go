package assign

import (
	"testing"

	"github.com/koratnet/korat/ipam"
)

func TestABlockIsClaimedBeforeItIsNeeded(t *testing.T) {
	w, c := newWorld()
	a := w.node(t, "a", t.TempDir(), c, pool("p", "10.0.0.0/29", 30))
	look := func(want int) {
		t.Helper()
		if err := a.Ahead(t.Context()); err != nil || len(w.blocks) != want {
			t.Fatalf("%v, %d blocks, want %d", err, len(w.blocks), want)
		}
	}
	look(0) // no pod has come yet
	for i := range 3 {
		give(t, a, handle(i), ipam.Request{})
	}
	look(1)
	give(t, a, handle(3), ipam.Request{})
	look(2)
	look(2)
	for i := range 4 {
		give(t, a, handle(4+i), ipam.Request{})
	}
	look(2) // there is no third
}
