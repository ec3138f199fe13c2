package interop

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const birdConfig = `
log stderr all;
router id {{.ID}};
protocol device { scan time 1; }
protocol direct { ipv4; ipv6; }
protocol bfd { interface "*" { interval 300 ms; multiplier 3; }; }
protocol static own4 {
	ipv4 { import filter { bgp_community.add((65001,77)); bgp_large_community.add((65001,1,2)); accept; }; };
{{- range .Networks}}
	route {{.}} unreachable;
{{- end}}
}
protocol static own6 {
	ipv6 { import filter { bgp_community.add((65001,77)); bgp_large_community.add((65001,1,2)); accept; }; };
{{- range .Networks6}}
	route {{.}} unreachable;
{{- end}}
}
{{$s := .}}
{{- range .Neighbours}}
protocol bgp {{name .Addr}} {
	local {{.Local}} as {{$s.AS}};
	neighbor {{.Addr}} as {{.AS}};
	passive on;
	connect delay time 1; connect retry time 1; error wait time 1, 2;
	graceful restart on;
	graceful restart time {{$s.Restart}};
{{- if $s.LongLived}}
	long lived graceful restart on;
	long lived stale time {{$s.LongLived}};
{{- end}}
{{- if .Password}}
	password "{{.Password}}";
{{- end}}
{{- if .GTSM}}
	ttl security on;
{{- end}}
{{- if .Hops}}
	multihop {{.Hops}};
{{- end}}
{{- if .BFD}}
	# To an iBGP neighbour BIRD would speak multihop BFD.
	direct;
	bfd{{if .BFDGraceful}} graceful{{end}};
{{- end}}
{{- if .Client}}
	rr client;
{{- end}}
{{- if .V4}}
	ipv4 { import all; export where source ~ [RTS_STATIC, RTS_BGP];{{if .AddPaths}} add paths tx;{{end}}{{if .Extended}} extended next hop on;{{end}} };
{{- end}}
{{- if .V6}}
	ipv6 { import all; export where source ~ [RTS_STATIC, RTS_BGP]; };
{{- end}}
}
{{end}}
`

type birdDaemon struct{}

type bird struct {
	m    *machine
	dir  string
	conf string
	stop func(os.Signal)
}

func (birdDaemon) start(m *machine, s spec) router {
	m.l.Helper()
	r := &bird{m: m, dir: m.l.dir()}
	r.conf = m.l.write(r.dir, "bird.conf", render(m.l.T, birdConfig, s))
	r.run()
	return r
}

func (r *bird) ctl() string { return filepath.Join(r.dir, "bird.ctl") }

func (r *bird) run(args ...string) {
	r.m.l.Helper()
	_ = os.Remove(r.ctl())
	r.stop = r.m.start(exec.Command("bird", append([]string{"-f", "-c", r.conf, "-s", r.ctl(), "-P", filepath.Join(r.dir, "pid")}, args...)...))
	waitFile(r.m.l.T, r.ctl())
}

// again starts BIRD in its recovery mode, in which it says that it restarted.
func (r *bird) again() { r.run("-R") }

func (r *bird) end(s os.Signal) { r.stop(s) }

func (r *bird) birdc(command ...string) string {
	return output("birdc", append([]string{"-r", "-s", r.ctl()}, command...)...)
}

func protocol(a netip.Addr) string {
	return "n" + strings.NewReplacer(".", "_", ":", "_").Replace(a.String())
}

func (r *bird) routes(v6 bool) map[string]route {
	table := "master4"
	if v6 {
		table = "master6"
	}
	out := map[string]route{}
	var prefix string
	for line := range strings.Lines(r.birdc("show", "route", "where", "source", "=", "RTS_BGP", "table", table, "all")) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		one := out[prefix]
		switch {
		case strings.Contains(f[0], "/") && strings.Contains(line, "["):
			prefix = f[0]
			one = route{Stale: strings.Contains(line, "s]") || strings.Contains(line, "STALE")}
		case f[0] == "BGP.next_hop:":
			one.NextHop = f[1]
		case f[0] == "BGP.as_path:":
			one.Path = strings.Join(f[1:], " ")
		case f[0] == "BGP.community:", f[0] == "BGP.large_community:":
			for _, c := range strings.Split(strings.Join(f[1:], ""), ")(") {
				one.Communities = strings.TrimSpace(one.Communities + " " + strings.ReplaceAll(strings.Trim(c, "()"), ",", ":"))
			}
		}
		if prefix != "" {
			out[prefix] = one
		}
	}
	return out
}

func (r *bird) established(peer netip.Addr) bool {
	return strings.Contains(r.birdc("show", "protocols", protocol(peer)), "Established")
}

func (r *bird) refresh(peer netip.Addr) string {
	return output("birdc", "-s", r.ctl(), "reload", "in", protocol(peer))
}

func (r *bird) canRefresh(peer netip.Addr) bool {
	_, theirs, _ := strings.Cut(r.birdc("show", "protocols", "all", protocol(peer)), "Neighbor capabilities")
	return strings.Contains(theirs, "Route refresh")
}

func (r *bird) bfd(peer netip.Addr) string {
	for line := range strings.Lines(r.birdc("show", "bfd", "sessions")) {
		if f := strings.Fields(line); len(f) > 2 && f[0] == peer.String() {
			return f[2]
		}
	}
	return ""
}
