package interop

import (
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const frrConfig = `
router bgp {{.AS}}
 bgp router-id {{.ID}}
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 no bgp network import-check
 bgp graceful-restart
 bgp graceful-restart restart-time {{.Restart}}
 bgp graceful-restart preserve-fw-state
{{- if .LongLived}}
 bgp long-lived-graceful-restart stale-time {{.LongLived}}
{{- end}}
{{- range .Neighbours}}
 neighbor {{.Addr}} remote-as {{.AS}}
 neighbor {{.Addr}} update-source {{.Local}}
 neighbor {{.Addr}} timers connect 1
 neighbor {{.Addr}} advertisement-interval 0
 neighbor {{.Addr}} passive
{{- if .Password}}
 neighbor {{.Addr}} password {{.Password}}
{{- end}}
{{- if .GTSM}}
 neighbor {{.Addr}} ttl-security hops 1
{{- end}}
{{- if .Hops}}
 neighbor {{.Addr}} ebgp-multihop {{.Hops}}
{{- end}}
{{- if .BFD}}
 neighbor {{.Addr}} bfd 3 300 300
{{- end}}
{{- if .Extended}}
 neighbor {{.Addr}} capability extended-nexthop
{{- end}}
{{- end}}
 address-family ipv4 unicast
{{- range .Networks}}
  network {{.}} route-map tag
{{- end}}
{{- range .Neighbours}}{{if .V4}}
  neighbor {{.Addr}} activate
{{- if .Client}}
  neighbor {{.Addr}} route-reflector-client
{{- end}}
{{- if .AddPaths}}
  neighbor {{.Addr}} addpath-tx-all-paths
{{- end}}
{{- end}}{{end}}
 exit-address-family
 address-family ipv6 unicast
{{- range .Networks6}}
  network {{.}} route-map tag
{{- end}}
{{- range .Neighbours}}{{if .V6}}
  neighbor {{.Addr}} activate
{{- if .Client}}
  neighbor {{.Addr}} route-reflector-client
{{- end}}
{{- end}}{{end}}
 exit-address-family
!
route-map tag permit 10
 set community 65001:77
 set large-community 65001:1:2
!
`

type frrDaemon struct{}

type frr struct {
	m    *machine
	dir  string
	conf string
	stop func(os.Signal)
}

func (frrDaemon) start(m *machine, s spec) router {
	l := m.l
	l.Helper()
	r := &frr{m: m, dir: l.dir()}
	u, err := user.Lookup("frr") // the daemons run as this user
	if err != nil {
		l.Fatal(err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	if err := os.Chown(r.dir, uid, gid); err != nil {
		l.Fatal(err)
	}
	r.conf = l.write(r.dir, "bgpd.conf", render(l.T, frrConfig, s))
	r.daemon("zebra", l.write(r.dir, "zebra.conf", ""))
	waitFile(l.T, filepath.Join(r.dir, "zserv.api"))
	r.daemon("bfdd", l.write(r.dir, "bfdd.conf", ""), "--bfdctl", filepath.Join(r.dir, "bfdd.sock"))
	waitFile(l.T, filepath.Join(r.dir, "bfdd.vty"))
	r.again()
	return r
}

func (r *frr) daemon(name, conf string, args ...string) func(os.Signal) {
	return r.m.start(exec.Command("/usr/lib/frr/"+name, append([]string{
		"-u", "frr", "-g", "frr", "-P", "0", "--log", "stdout", "--vty_socket", r.dir,
		"-z", filepath.Join(r.dir, "zserv.api"), "-i", filepath.Join(r.dir, name+".pid"), "-f", conf,
	}, args...)...))
}

func (r *frr) again() {
	_ = os.Remove(filepath.Join(r.dir, "bgpd.vty"))
	r.stop = r.daemon("bgpd", r.conf)
	waitFile(r.m.l.T, filepath.Join(r.dir, "bgpd.vty"))
}

func (r *frr) end(s os.Signal) { r.stop(s) }

func (r *frr) vtysh(daemon, command string) string {
	return output("vtysh", "--vty_socket", r.dir, "-d", daemon, "-c", command)
}

func (r *frr) routes(v6 bool) map[string]route {
	family := "ipv4"
	if v6 {
		family = "ipv6"
	}
	var table struct {
		Routes map[string][]struct {
			PeerID string
		}
	}
	out := map[string]route{}
	if json.Unmarshal([]byte(r.vtysh("bgpd", "show bgp "+family+" unicast json")), &table) != nil {
		return out
	}
	for prefix, paths := range table.Routes {
		for _, p := range paths {
			if p.PeerID != "(unspec)" {
				out[prefix] = r.detail(family, prefix)
			}
		}
	}
	return out
}

func (r *frr) detail(family, prefix string) route {
	var one struct {
		Paths []struct {
			Stale          bool
			ASPath         struct{ String string }
			Community      struct{ List []string }
			LargeCommunity struct{ List []string }
			NextHops       []struct{ IP, Scope string }
			Peer           struct{ PeerID string }
		}
	}
	if json.Unmarshal([]byte(r.vtysh("bgpd", "show bgp "+family+" unicast "+prefix+" json")), &one) != nil {
		return route{}
	}
	for _, p := range one.Paths {
		for _, nh := range p.NextHops {
			if nh.Scope != "link-local" {
				return route{nh.IP, strings.Join(slices.Concat(p.Community.List, p.LargeCommunity.List), " "), p.Stale, p.ASPath.String}
			}
		}
	}
	return route{}
}

type frrNeighbour struct {
	BgpState             string
	NeighborCapabilities struct{ RouteRefresh string }
	PeerBfdInfo          struct{ Status string }
}

func (r *frr) neighbour(peer netip.Addr) frrNeighbour {
	var all map[string]frrNeighbour
	if json.Unmarshal([]byte(r.vtysh("bgpd", "show bgp neighbors "+peer.String()+" json")), &all) != nil {
		return frrNeighbour{}
	}
	return all[peer.String()]
}

func (r *frr) established(peer netip.Addr) bool { return r.neighbour(peer).BgpState == "Established" }

func (r *frr) refresh(peer netip.Addr) string {
	return r.vtysh("bgpd", "clear bgp "+peer.String()+" soft in")
}

func (r *frr) canRefresh(peer netip.Addr) bool {
	return strings.Contains(r.neighbour(peer).NeighborCapabilities.RouteRefresh, "eceived")
}

func (r *frr) bfd(peer netip.Addr) string { return r.neighbour(peer).PeerBfdInfo.Status }
