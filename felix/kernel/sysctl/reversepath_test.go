package sysctl_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/kernel/sysctl"
)

func TestWhichInterfacesAskForTheReversePath(t *testing.T) {
	n := kerneltest.New(t)
	for _, name := range []string{"eth0", "eth1", "kor1", "wg4-korat"} {
		n.Run("ip", "link", "add", name, "type", "bridge")
	}
	for _, c := range []struct {
		all, eth0 string
		want      []string
	}{
		{"0", "0", nil}, {"0", "1", []string{"eth0"}}, {"0", "2", nil}, {"1", "0", []string{"eth0", "eth1"}}, {"1", "2", []string{"eth1"}}, {"2", "1", nil},
	} {
		n.Run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter="+c.all, "net.ipv4.conf.eth0.rp_filter="+c.eth0, "net.ipv4.conf.eth1.rp_filter=0")
		n.Do(func() {
			got, err := sysctl.StrictReversePath(sysctl.Root)
			if err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("all %s, eth0 %s (-want +got):\n%s", c.all, c.eth0, diff)
			}
		})
	}
}
