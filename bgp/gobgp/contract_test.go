package gobgp_test

import (
	"log/slog"
	"testing"

	"github.com/koratnet/korat/bgp/gobgp"
	"github.com/koratnet/korat/bgp/speakertest"
)

func TestSpeakersFulfilTheContract(t *testing.T) {
	speakertest.Contract(t, func(t *testing.T, restarted bool) speakertest.Speaker {
		return gobgp.New(gobgp.Options{Log: slog.New(slog.DiscardHandler), Restarted: restarted})
	})
}
