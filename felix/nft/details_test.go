package nft_test

import (
	"testing"

	"github.com/koratnet/korat/felix/dataplanetest"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/nft"
)

// dumped is the backend whose table can be compared.
func dumped() dataplanetest.Backend {
	b := backend
	b.Dump = func(node *kerneltest.Namespace) string { return dataplanetest.Table(node, "inet", nft.TableName) }
	return b
}

func TestDetails(t *testing.T) { dataplanetest.Items(t, dumped()) }

func TestKernelAgreesWithEvalOfPrograms(t *testing.T) { dataplanetest.Programs(t, backend) }

func TestKillAnywhere(t *testing.T) { dataplanetest.KillAnywhere(t, dumped()) }
