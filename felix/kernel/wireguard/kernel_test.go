//go:build vm

package wireguard_test

import (
	"testing"

	"github.com/koratnet/korat/felix/desired"
)

// TestTheKernelEncryptsWhereItCan: no process runs beside it.
func TestTheKernelEncryptsWhereItCan(t *testing.T) {
	_, all := joined(t, desired.WireGuard4, 2)
	if all[0].status(t).Userspace {
		t.Error("a process encrypts")
	}
	if kind := all[0].Link("wg4-korat").Type(); kind != "wireguard" {
		t.Errorf("the interface is a %s", kind)
	}
}
