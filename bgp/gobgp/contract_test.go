package gobgp_test

import (
	"log/slog"
	"testing"

	"github.com/koratnet/korat/bgp/gobgp"
	"github.com/koratnet/korat/bgp/reconcile"
	"github.com/koratnet/korat/bgp/speakertest"
)

func speaking(_ *testing.T, restarted bool) reconcile.SpeakCloser {
	return gobgp.New(gobgp.Options{Log: slog.New(slog.DiscardHandler), Restarted: restarted})
}

func TestSpeakersFulfilTheContract(t *testing.T) { speakertest.Contract(t, speaking) }

// TestItem66WhatIsTold: what peers asked for, and nothing that others said.
func TestItem66WhatIsTold(t *testing.T) { speakertest.Item(t, 66, speaking) }

// TestItem67WhatIsTaken: what filters let in, and nothing in the place of our own.
func TestItem67WhatIsTaken(t *testing.T) { speakertest.Item(t, 67, speaking) }

// TestItem68Reflection: next hops are kept, clients and others as RFC 4456 says.
func TestItem68Reflection(t *testing.T) { speakertest.Item(t, 68, speaking) }
