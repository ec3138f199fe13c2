package interop

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// The binaries that `make interop` leaves.
var (
	gobgpdBinary, _ = filepath.Abs("../../bin/gobgpd")
	gobgpBinary, _  = filepath.Abs("../../bin/gobgp")
)

const gobgpdConfig = `
[global.config]
as = {{.AS}}
router-id = "{{.ID}}"
{{$s := .}}
{{- range .Neighbours}}
[[neighbors]]
[neighbors.config]
neighbor-address = "{{.Addr}}"
peer-as = {{.AS}}
auth-password = "{{.Password}}"
[neighbors.transport.config]
local-address = "{{.Local}}"
passive-mode = true
[neighbors.graceful-restart.config]
enabled = true
restart-time = {{$s.Restart}}
notification-enabled = true
long-lived-enabled = {{if $s.LongLived}}true{{else}}false{{end}}
{{- if .Hops}}
[neighbors.ebgp-multihop.config]
enabled = true
multihop-ttl = {{.Hops}}
{{- end}}
{{- if .BFD}}
[neighbors.bfd.config]
enabled = true
desired-minimum-tx-interval = 300000
required-minimum-receive = 300000
detection-multiplier = 3
{{- end}}
{{- if .GTSM}}
[neighbors.ttl-security.config]
enabled = true
ttl-min = 255
{{- end}}
{{- if .Client}}
[neighbors.route-reflector.config]
route-reflector-client = true
route-reflector-cluster-id = "{{$s.ID}}"
{{- end}}
{{- if .V4}}
[[neighbors.afi-safis]]
[neighbors.afi-safis.config]
afi-safi-name = "ipv4-unicast"
[neighbors.afi-safis.mp-graceful-restart.config]
enabled = true
{{- if $s.LongLived}}
[neighbors.afi-safis.long-lived-graceful-restart.config]
enabled = true
restart-time = {{$s.LongLived}}
{{- end}}
{{- if .AddPaths}}
[neighbors.afi-safis.add-paths.config]
send-max = 8
{{- end}}
{{- end}}
{{- if .V6}}
[[neighbors.afi-safis]]
[neighbors.afi-safis.config]
afi-safi-name = "ipv6-unicast"
[neighbors.afi-safis.mp-graceful-restart.config]
enabled = true
{{- end}}
{{- end}}
`

type gobgpDaemon struct{}

type gobgpd struct {
	m    *machine
	s    spec
	dir  string
	conf string
	stop func(os.Signal)
}

func (gobgpDaemon) start(m *machine, s spec) router {
	m.l.Helper()
	r := &gobgpd{m: m, s: s, dir: m.l.dir()}
	r.conf = m.l.write(r.dir, "gobgpd.toml", render(m.l.T, gobgpdConfig, s))
	r.run()
	return r
}

func (r *gobgpd) socket() string { return filepath.Join(r.dir, "api") }

func (r *gobgpd) run(args ...string) {
	r.m.l.Helper()
	_ = os.Remove(r.socket())
	r.stop = r.m.start(exec.Command(gobgpdBinary, append([]string{
		"-f", r.conf, "--api-hosts", "unix://" + r.socket(), "--pprof-disable", "--log-plain",
	}, args...)...))
	eventually(r.m.l.T, "gobgpd answers", func() string {
		if out := r.gobgp("global"); !strings.Contains(out, "AS:") {
			return out
		}
		return ""
	})
	for family, networks := range map[string][]string{"ipv4": r.s.Networks, "ipv6": r.s.Networks6} {
		for _, n := range networks {
			hop := r.m.addr.String()
			if family == "ipv6" || slices.ContainsFunc(r.s.Neighbours, func(n neighbour) bool { return n.Extended }) {
				hop = r.m.addr6.String()
			}
			if out := r.gobgp("global", "rib", "-a", family, "add", n, "nexthop", hop, "community", "65001:77", "large-community", "65001:1:2"); out != "" {
				r.m.l.Fatalf("gobgp: %s", out)
			}
		}
	}
}

func (r *gobgpd) again() { r.run("--graceful-restart") }

func (r *gobgpd) end(s os.Signal) { r.stop(s) }

func (r *gobgpd) gobgp(args ...string) string {
	return output(gobgpBinary, append([]string{"--target", "unix://" + r.socket()}, args...)...)
}

func (r *gobgpd) routes(v6 bool) map[string]route {
	family := "ipv4"
	if v6 {
		family = "ipv6"
	}
	var table map[string][]struct {
		Stale bool
		Attrs []struct {
			Type        int
			NextHop     string
			Communities []uint32
			ASPaths     []struct{ ASNs []uint32 } `json:"as_paths"`
			Value       any
		}
	}
	out := map[string]route{}
	if json.Unmarshal([]byte(r.gobgp("-j", "global", "rib", "-a", family)), &table) != nil {
		return out
	}
	for prefix, paths := range table {
		for _, p := range paths {
			if slices.Contains(slices.Concat(r.s.Networks, r.s.Networks6), prefix) {
				continue // its own
			}
			one := route{Stale: p.Stale}
			for _, a := range p.Attrs {
				switch a.Type {
				case 2:
					for _, segment := range a.ASPaths {
						one.Path = strings.Trim(fmt.Sprint(segment.ASNs), "[]")
					}
				case 3, 14:
					one.NextHop = a.NextHop
				case 8:
					for _, c := range a.Communities {
						one.Communities += fmt.Sprintf(" %d:%d", c>>16, c&0xffff)
					}
				case 32:
					if l, ok := a.Value.([]any); ok {
						for _, c := range l {
							if m, ok := c.(map[string]any); ok {
								one.Communities += fmt.Sprintf(" %v:%v:%v", m["ASN"], m["LocalData1"], m["LocalData2"])
							}
						}
					}
				}
			}
			one.Communities = strings.TrimSpace(one.Communities)
			out[prefix] = one
		}
	}
	return out
}

func (r *gobgpd) neighbour(peer netip.Addr) string { return r.gobgp("neighbor", peer.String()) }

func (r *gobgpd) established(peer netip.Addr) bool {
	return strings.Contains(r.neighbour(peer), "BGP state = ESTABLISHED")
}

func (r *gobgpd) refresh(peer netip.Addr) string {
	return r.gobgp("neighbor", peer.String(), "softresetin")
}

func (r *gobgpd) canRefresh(peer netip.Addr) bool {
	for line := range strings.Lines(r.neighbour(peer)) {
		if strings.Contains(line, "route-refresh:") && strings.Contains(line, "received") {
			return true
		}
	}
	return false
}

func (r *gobgpd) bfd(peer netip.Addr) string {
	out := r.gobgp("-j", "neighbor", peer.String())
	if strings.Contains(out, `"bfd_state":{"session_state":1,`) {
		return "Up"
	}
	return out
}
