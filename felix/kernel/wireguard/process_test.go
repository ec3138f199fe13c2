//go:build !vm

package wireguard_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/policy/ir"
)

// pid returns the process of the node's tunnel, 0 if none runs.
func (s *site) pid(t testing.TB) int {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		line, _ := os.ReadFile(name) // it may have ended
		if bytes.Contains(line, []byte("\x00"+s.dir+"\x00")) && bytes.Contains(line, []byte("\x00"+s.kind.Device()+"\x00")) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			return pid
		}
	}
	return 0
}

// TestAKilledProcessLeavesNothingInClear: the interface, its address and its routes
// stay, what goes there is dropped, and the next Apply starts a process that knows
// everything.
func TestAKilledProcessLeavesNothingInClear(t *testing.T) {
	bothFamilies(t, func(t *testing.T, kind desired.TunnelKind) {
		wire, all := joined(t, kind, 2)
		a, b := all[0], all[1]
		tap := listen(t, wire, port)
		if !a.status(t).Userspace {
			t.Fatal("the kernel encrypts")
		}
		killed := a.pid(t)
		if err := syscall.Kill(killed, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		kerneltest.Eventually(t, "the interface loses its carrier", func() bool {
			return a.Link(kind.Device()).Attrs().RawFlags&syscall.IFF_RUNNING == 0
		})
		if out, err := a.Try("ping", "-c2", "-i0.2", "-W1", b.inside.String()); err == nil {
			t.Errorf("somebody answers: %s", out)
		}
		if route := a.Run("ip", "route", "get", b.inside.String()); !strings.Contains(route, "dev "+kind.Device()) {
			t.Errorf("packets leave so: %s", route)
		}
		if _, err := a.tunnels.Status(); err == nil {
			t.Error("a process that is dead tells its status")
		}
		a.tunnels.LinkChanged(kind.Device())
		a.apply(t, desired.Delta{})
		a.reaches(t, b)
		b.reaches(t, a)
		tap.check(t)
		if now := a.pid(t); now == killed || now == 0 {
			t.Errorf("process %d, was %d", now, killed)
		}
	})
}

// TestWhoCannotEncryptFailsOnlyWhereItIsRequired: without the device of tuns, as in a
// container that was not given it. State tells of it in any case, so that no key is
// announced; an error would keep the node, which sends in clear, from being ready.
func TestWhoCannotEncryptFailsOnlyWhereItIsRequired(t *testing.T) {
	for name, before := range map[string]func(*testing.T, *site){
		"from the beginning": func(*testing.T, *site) {},
		"after an agent that could": func(t *testing.T, s *site) {
			s.apply(t, s.own())
			if err := syscall.Kill(s.pid(t), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			kerneltest.Eventually(t, "the process ended", func() bool { return s.pid(t) == 0 })
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, all := sites(t, desired.WireGuard4, 1)
			s := all[0]
			before(t, s)
			s.tunnels = s.open(t)
			pools := func(c desired.SetChange) desired.Delta {
				c.Kind = ir.Nets
				return desired.Delta{Sets: map[ir.SetID]*desired.SetChange{desired.EncryptedSet: &c}}
			}
			pool := map[ir.Member]struct{}{{Prefix: s.block}: {}}
			s.Do(func() {
				hideTuns(t)
				for _, step := range []struct {
					what  string
					d     desired.Delta
					fails bool
				}{
					{"nothing requires it", s.own(), false},
					{"again", desired.Delta{}, false},
					{"a pool requires it", pools(desired.SetChange{Add: pool}), true},
					{"it does not any more", pools(desired.SetChange{Del: pool}), false},
					{"another one does", pools(desired.SetChange{Whole: true, Add: pool}), true},
					{"none of all", pools(desired.SetChange{Gone: true}), false},
				} {
					s.tunnels.Want(step.d)
					if err := s.tunnels.Apply(t.Context()); (err != nil) != step.fails {
						t.Errorf("%s: %v", step.what, err)
					}
					if err := s.tunnels.State()[s.kind]; err == nil || !strings.Contains(err.Error(), "no WireGuard") || !strings.Contains(err.Error(), "/dev/net/tun") {
						t.Errorf("%s: the tunnel is in the state %v", step.what, err)
					}
				}
			})
			s.apply(t, desired.Delta{}) // with the device
		})
	}
}

// hideTuns takes the device of tuns from the calling thread, for good.
func hideTuns(t *testing.T) {
	t.Helper()
	err := unix.Unshare(unix.CLONE_NEWNS)
	if err == nil {
		err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	}
	if err == nil {
		err = unix.Mount("tmpfs", "/dev/net", "tmpfs", 0, "")
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestAProcessHasNoPrivilege(t *testing.T) {
	_, all := joined(t, desired.WireGuard4, 2)
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", all[0].pid(t)))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"Uid:": "65531\t65531\t65531\t65531", "Gid:": "65531\t65531\t65531\t65531", "Groups:": "",
		"CapEff:": "0000000000000000", "CapPrm:": "0000000000000000", "CapAmb:": "0000000000000000",
	}
	for line := range strings.Lines(string(text)) {
		for key, value := range want {
			if have, ok := strings.CutPrefix(line, key); ok && strings.TrimSpace(have) != value {
				t.Errorf("%s is %q, want %q", key, strings.TrimSpace(have), value)
			}
		}
	}
}

func TestAnotherVersionReplacesTheProcess(t *testing.T) {
	_, all := joined(t, desired.WireGuard4, 2)
	a, b := all[0], all[1]
	old := a.pid(t)
	a.tunnels = a.openAs(t, "v2")
	a.apply(t, a.knows(a.own(), b))
	if now := a.pid(t); now == old || now == 0 {
		t.Errorf("process %d, was %d", now, old)
	}
	a.reaches(t, b)
	b.reaches(t, a)
}

// TestAProcessEndsWithItsInterface: and with its socket, which whoever empties the
// run directory takes away.
func TestAProcessEndsWithItsInterface(t *testing.T) {
	for what, end := range map[string]func(*site){
		"interface": func(s *site) { s.Run("ip", "link", "del", s.kind.Device()) },
		"socket":    func(s *site) { os.RemoveAll(filepath.Join(s.dir, "wireguard")) },
	} {
		t.Run(what, func(t *testing.T) {
			_, all := sites(t, desired.WireGuard4, 1)
			a := all[0]
			a.apply(t, a.own())
			end(a)
			kerneltest.Eventually(t, "the process ends", func() bool { return a.pid(t) == 0 })
			a.tunnels.LinkChanged(a.kind.Device())
			a.apply(t, a.own())
		})
	}
}

// TestTheSocketAdmitsRootAlone: who can write there reads the private key.
func TestTheSocketAdmitsRootAlone(t *testing.T) {
	_, all := sites(t, desired.WireGuard4, 1)
	a := all[0]
	a.apply(t, a.own())
	info, err := os.Stat(filepath.Join(a.dir, "wireguard"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm()&0o007 != 0 {
		t.Errorf("the directory's mode is %v", info.Mode().Perm())
	}
	if stat := info.Sys().(*syscall.Stat_t); stat.Uid != 0 || stat.Gid != 65531 {
		t.Errorf("the directory is of %d:%d, want 0:65531", stat.Uid, stat.Gid)
	}
	for _, nonsense := range []string{"", "\n", "korat=v1\nset=1\nprivate_key=zz\n\n", "korat=v1\nget=1\nx", "korat=v1\nset=1\npublic_key="} {
		c, err := net.Dial("unix", filepath.Join(a.dir, "wireguard", a.kind.Device()+".sock"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte(nonsense)); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	a.apply(t, a.own())
}
