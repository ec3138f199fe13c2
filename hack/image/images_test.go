//go:build images

package main_test

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/koratnet/korat/charts"
)

const version = "v0.0.0-test"

var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// TestImage builds the image for both architectures as `make images` does, twice,
// and reads what came out.
func TestImage(t *testing.T) {
	out := build(t)
	archive := filepath.Join(out, "korat.tar")
	t.Run("two builds are equal to the last byte", func(t *testing.T) {
		if diff := cmp.Diff(sums(t, out), sums(t, build(t))); diff != "" {
			t.Error(diff)
		}
	})
	l := layout(t.TempDir())
	run(t, "tar", "-xf", archive, "-C", string(l))
	var names, index document
	read(t, filepath.Join(string(l), "index.json"), &names)
	read(t, l.blob(names.Manifests[0]), &index)
	if len(index.Manifests) != len(machines) {
		t.Errorf("platforms %+v, want %v", index.Manifests, machines)
	}
	for _, m := range index.Manifests {
		t.Run(m.Platform.Architecture, func(t *testing.T) {
			root := l.unpack(t, m)
			programs(t, root, m.Platform.Architecture)
			beside, err1 := os.ReadFile(filepath.Join(out, "korat-"+m.Platform.Architecture+".cdx.json"))
			inside, err2 := os.ReadFile(filepath.Join(root, "usr/share/sbom/bom.cdx.json"))
			if err := errors.Join(err1, err2); err != nil || !bytes.Equal(beside, inside) {
				t.Errorf("the bill of materials inside is not the one beside it (%v)", err)
			}
			if m.Platform.Architecture == runtime.GOARCH {
				usable(t, root)
			}
		})
	}
	t.Run("containerd imports all of it", func(t *testing.T) { imported(t, archive) })
}

// build returns the directory with an image of its own.
func build(t *testing.T) string {
	t.Helper()
	out := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "../images.sh")
	cmd.Env = append(os.Environ(), "VERSION="+version, "OUT="+out)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("hack/images.sh: %v: %s", err, text)
	}
	return out
}

func run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func sums(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for line := range strings.Lines(run(t, "sh", "-c", "cd "+dir+" && sha256sum *")) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		out[name] = sum
	}
	if want := 1 + len(machines); len(out) != want {
		t.Fatalf("built %v: want an archive and %d bills of materials", out, len(machines))
	}
	return out
}

// layout is the directory of an unpacked archive.
type layout string

type descriptor struct {
	Digest   string
	Platform struct{ OS, Architecture string }
}

// document is an index, a manifest or an image's configuration.
type document struct {
	Manifests, Layers []descriptor
	Config            json.RawMessage
	OS, Architecture  string
}

func (l layout) blob(d descriptor) string {
	return filepath.Join(string(l), "blobs", strings.Replace(d.Digest, ":", "/", 1))
}

func read(t *testing.T, file string, into any) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// unpack returns the directory with the files of a platform, of which it looks at what
// the image says itself.
func (l layout) unpack(t *testing.T, d descriptor) string {
	t.Helper()
	var m, c document
	var config descriptor
	read(t, l.blob(d), &m)
	if err := json.Unmarshal(m.Config, &config); err != nil {
		t.Fatal(err)
	}
	read(t, l.blob(config), &c)
	if c.OS != "linux" || d.Platform.OS != "linux" || c.Architecture != d.Platform.Architecture {
		t.Errorf("the index says %+v, the configuration %s/%s", d.Platform, c.OS, c.Architecture)
	}
	var says struct {
		User       string
		Entrypoint []string
		Labels     map[string]string
	}
	if err := json.Unmarshal(c.Config, &says); err != nil {
		t.Fatal(err)
	}
	// The agent is root with few capabilities; the chart gives controllers another user.
	if says.User != "" || !cmp.Equal(says.Entrypoint, []string{"/usr/bin/korat"}) || says.Labels["org.opencontainers.image.version"] != version {
		t.Errorf("configuration %+v", says)
	}
	root := t.TempDir()
	for _, layer := range m.Layers {
		run(t, "tar", "-xf", l.blob(layer), "-C", root)
	}
	return root
}

// programs checks that everything below root that can be run is for one architecture,
// and finds its libraries there; our own programs need none, and know their version.
func programs(t *testing.T, root, arch string) {
	t.Helper()
	ours := map[string]bool{"korat": true, "korat-cni": true, "koratctl": true}
	needed, files := map[string]string{}, map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		files[d.Name()] = true
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := elf.Open(path)
		if err != nil {
			return nil // no program
		}
		defer f.Close()
		if f.Machine != machines[arch] {
			t.Errorf("%s is for %s", path, f.Machine)
		}
		libraries, err := f.ImportedLibraries()
		if err != nil {
			return err
		}
		for _, l := range libraries {
			needed[l] = d.Name()
		}
		if filepath.Dir(path) != filepath.Join(root, "usr/bin") {
			return nil
		}
		text, err := os.ReadFile(path)
		if !ours[d.Name()] || len(libraries) > 0 || f.Section(".interp") != nil || !bytes.Contains(text, []byte(version)) {
			t.Errorf("%s needs %v: want one of %v, linked statically, of this version", path, libraries, ours)
		}
		delete(ours, d.Name())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for l, who := range needed {
		if !files[l] {
			t.Errorf("%s needs %s, which is not there", who, l)
		}
	}
	if len(ours) > 0 {
		t.Errorf("programs %v are missing", ours)
	}
}

// usable runs programs as containers do: the controller as the user that the chart
// gives it, and the iptables that the agent calls.
func usable(t *testing.T, root string) {
	t.Helper()
	found := regexp.MustCompile(`runAsUser: (\d+)`).FindSubmatch(charts.Manifest)
	if found == nil {
		t.Fatal("the chart names no user")
	}
	uid, err := strconv.ParseUint(string(found[1]), 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	user := &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	for _, p := range []struct {
		user *syscall.Credential
		args []string
		want string
	}{
		{user, []string{"/usr/bin/korat", "--version"}, version},
		{nil, []string{"/usr/bin/koratctl", "--version"}, version},
		{nil, []string{"/usr/sbin/iptables-nft", "--version"}, "nf_tables"},
		{nil, []string{"/usr/sbin/ip6tables-legacy", "--version"}, "legacy"},
	} {
		cmd := exec.CommandContext(t.Context(), p.args[0], p.args[1:]...)
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: p.user}
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), p.want) {
			t.Errorf("%v prints %q, %v; want %q", p.args, out, err, p.want)
		}
	}
}

// imported gives the archive to a containerd of the test's own.
func imported(t *testing.T, archive string) {
	t.Helper()
	dir := t.TempDir()
	config, socket := filepath.Join(dir, "config.toml"), filepath.Join(dir, "socket")
	if err := os.WriteFile(config, []byte("version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("containerd", "--log-level", "error", "--config", config, "--address", socket, "--root", dir+"/root", "--state", dir+"/state")
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait()) })
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		c, err := net.Dial("unix", socket)
		if err == nil {
			c.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("containerd: %v", err)
		}
	}
	ctr := []string{"ctr", "--address", socket, "images"}
	run(t, append(ctr, "import", "--all-platforms", "--no-unpack", archive)...)
	list := run(t, append(ctr, "ls", "name=="+charts.Image+":"+version)...)
	for arch := range machines {
		if !strings.Contains(list, "linux/"+arch) {
			t.Errorf("containerd has not linux/%s of it:\n%s", arch, list)
		}
	}
}
