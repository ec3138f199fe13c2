package iptables

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/koratnet/korat/felix/kernel/kerneltest"
)

func TestTheFlavourIsTheOneOfKubelet(t *testing.T) {
	plain := Legacy
	if out, err := exec.Command("iptables", "--version").Output(); err == nil && strings.Contains(string(out), "nf_tables") {
		plain = NFT
	}
	for _, c := range []struct {
		name, make string
		want       Flavour
	}{
		{"nobody has been here", "true", plain},
		{"kubelet with nft", "iptables-nft -t mangle -N KUBE-IPTABLES-HINT", NFT},
		{"kubelet with legacy", "iptables-legacy -t mangle -N KUBE-IPTABLES-HINT", Legacy},
		{"an IPv6 kubelet with legacy", "ip6tables-legacy -t mangle -N KUBE-KUBELET-CANARY", Legacy},
		{"rules that iptables cannot print", "nft add table ip mangle && nft add chain ip mangle c && nft add rule ip mangle c numgen inc mod 2 vmap '{ 0 : accept }'", plain},
		{"a legacy table of somebody else", "iptables-legacy -t mangle -N THEIRS", plain},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &world{t: t, host: kerneltest.New(t)}
			w.host.Run("sh", "-c", c.make)
			w.host.Do(func() {
				got, err := Detect(t.Context())
				if err != nil || got != c.want {
					t.Errorf("got %q, %v; want %q", got, err, c.want)
				}
			})
		})
	}
}
