package speakertest_test

import (
	"testing"

	"github.com/koratnet/korat/bgp/reconcile"
	"github.com/koratnet/korat/bgp/speakertest"
)

func fakes() speakertest.Maker {
	var world speakertest.World
	return func(*testing.T, bool) reconcile.SpeakCloser { return world.Speaker() }
}

func TestFakesFulfilTheContract(t *testing.T) {
	speakertest.Contract(t, fakes())
	for _, item := range []int{66, 67, 68} {
		speakertest.Item(t, item, fakes())
	}
}
