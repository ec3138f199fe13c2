package speakertest_test

import (
	"testing"

	"github.com/koratnet/korat/bgp/speakertest"
)

func TestFakesFulfilTheContract(t *testing.T) {
	var world speakertest.World
	speakertest.Contract(t, func(*testing.T, bool) speakertest.Speaker { return world.Speaker() })
}
