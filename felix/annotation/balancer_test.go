package annotation_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/koratnet/korat/felix/annotation"
)

func TestWhatServicesAskFor(t *testing.T) {
	w, err := annotation.ParseBalancer(map[string]string{
		annotation.LoadBalancerIPs: "2001:db8::1, 192.0.2.1", annotation.LoadBalancerPools: "b,a", annotation.IPAddresses: "of pods",
	})
	var addrs []string
	for _, a := range w.Addrs {
		addrs = append(addrs, a.String())
	}
	if diff := cmp.Diff([]string{"192.0.2.1", "2001:db8::1"}, addrs); diff != "" || err != nil || strings.Join(w.Pools, " ") != "b a" {
		t.Errorf("asks for %+v (%v)", w, err)
	}
	for _, bad := range []string{"192.0.2.1,192.0.2.2", "", "192.0.2.0/24"} {
		_, err := annotation.ParseBalancer(map[string]string{annotation.LoadBalancerIPs: bad})
		if err == nil || !strings.Contains(err.Error(), annotation.LoadBalancerIPs+" of the service") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
