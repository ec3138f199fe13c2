package nft_test

import (
	"testing"

	"github.com/koratnet/korat/felix/apply"
	"github.com/koratnet/korat/felix/dataplanetest"
	"github.com/koratnet/korat/felix/nft"
)

var backend = dataplanetest.Backend{
	Name: "nftables",
	New: func() ([]apply.Phase, error) {
		f, err := nft.New()
		return []apply.Phase{{f}}, err
	},
}

func TestKernelAgreesWithEval(t *testing.T) { dataplanetest.Differential(t, backend) }

func TestAttacks(t *testing.T) { dataplanetest.Attacks(t, backend) }
