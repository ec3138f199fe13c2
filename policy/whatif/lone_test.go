package whatif

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPodsThatOnlyOneClusterHasAreTold(t *testing.T) {
	before, after := shop(), shop()
	before.Pods, after.Pods = before.Pods[1:], after.Pods[:4]
	if diff := cmp.Diff(Lone{Gone: []string{"shop/db"}, Added: []string{"shop/web-1"}}, Alone(before, after)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(Lone{Gone: []string{}, Added: []string{}}, Alone(before, before)); diff != "" {
		t.Error(diff)
	}
}
