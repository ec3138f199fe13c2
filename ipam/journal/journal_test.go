package journal

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/ipam"
)

var (
	block = netip.MustParsePrefix("10.0.0.0/26")
	addr  = netip.MustParseAddr("10.0.0.1")
	pod   = ipam.Handle{Namespace: "ns", Pod: "p", Sandbox: "c1", Interface: "eth0"}
)

// open opens the journal in dir as an agent does that starts: whoever had it
// open before is gone.
func open(t *testing.T, dir string) *Journal {
	t.Helper()
	if before := opened[dir]; before != nil {
		before.Close()
	}
	j, err := Open(dir, "n1")
	if err != nil {
		t.Fatal(err)
	}
	opened[dir] = j
	t.Cleanup(func() { j.Close() })
	return j
}

var opened = map[string]*Journal{}

func fill(t *testing.T, j *Journal) {
	t.Helper()
	until := time.Now().Add(time.Hour).Round(0)
	gone := ipam.Handle{Namespace: "ns", Pod: "gone", Sandbox: "c0"}
	_, errA := j.Attach(Attachment{Handle: gone, HostInterface: "kor1", Addrs: []netip.Addr{addr.Next()}})
	_, errB := j.Attach(Attachment{Handle: pod, HostInterface: "kor2", Addrs: []netip.Addr{addr}})
	if err := errors.Join(j.Claim(block, Claim{Pool: "default"}), errA, errB, j.Detach(gone, Rest{Until: until, Pod: "ns/gone"}),
		j.Carve(netip.MustParsePrefix("10.0.0.32/30"), Gift{ipam.Owner{Node: "n2", UID: "u", Journal: "j"}, 7}),
		j.Carve(netip.MustParsePrefix("10.0.0.48/30"), Gift{To: ipam.Owner{Node: "n2"}}), j.Return(netip.MustParsePrefix("10.0.0.48/30"))); err != nil {
		t.Fatal(err)
	}
}

var equal = cmp.Options{
	cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}),
	cmpopts.EquateApproxTime(0),
}

func TestWhatWasRecordedIsThereAfterARestart(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	fill(t, j)
	want := j.State()
	if len(want.Attachments) != 1 || len(want.Resting) != 1 || len(want.Carved) != 1 || want.Generation != 2 {
		t.Fatalf("unexpected state %+v", want)
	}
	for range 2 { // the second time it reads what the first compacted
		if diff := cmp.Diff(want, open(t, dir).State(), equal); diff != "" {
			t.Fatal(diff)
		}
	}
}

// A crash may tear the last line at any byte. What was synced before is kept.
func TestATornLastLineIsDropped(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	fill(t, j)
	want := j.State()
	good, _ := os.ReadFile(j.path)
	if _, err := j.Attach(Attachment{Handle: ipam.Handle{Pod: "late"}, Addrs: []netip.Addr{addr.Next()}}); err != nil {
		t.Fatal(err)
	}
	all, _ := os.ReadFile(j.path)
	for n := len(good); n < len(all); n++ {
		if err := os.WriteFile(j.path, all[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, open(t, dir).State(), equal); diff != "" {
			t.Fatalf("torn at byte %d of %d: %s", n, len(all), diff)
		}
	}
}

// What is damaged is not guessed at: the node begins anew, with an identity of
// which nothing is known, and the old file stays for people to read.
func TestADamagedFileIsMovedAwayAndNamed(t *testing.T) {
	for name, spoil := range map[string]func([]byte) []byte{
		"a flipped bit":      func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"foreign content":    func([]byte) []byte { return []byte("hello\nworld\n") },
		"its beginning lost": func(b []byte) []byte { return b[200:] },
		"empty":              func([]byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			j := open(t, dir)
			fill(t, j)
			was := j.State().ID
			j.Close()
			data, _ := os.ReadFile(j.path)
			data = spoil(data)
			if err := os.WriteFile(j.path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			j = open(t, dir)
			if err := j.Damage(); err == nil || !strings.Contains(err.Error(), j.path+".damaged") {
				t.Fatalf("got %v, want the place of the old file", err)
			}
			if s := j.State(); s.ID == was || s.Node != "n1" || len(s.Blocks)+len(s.Attachments) != 0 {
				t.Errorf("state after damage: %+v", s)
			}
			if kept, err := os.ReadFile(j.path + ".damaged"); err != nil || string(kept) != string(data) {
				t.Errorf("the old file is not kept: %v", err)
			}
		})
	}
}

// Whatever somebody does to the file while the agent runs, the next start knows
// all that was answered for.
func TestAFileThatSomebodyTouchesIsWrittenAgain(t *testing.T) {
	for name, touch := range map[string]func(path string) error{
		"deleted":  os.Remove,
		"replaced": func(p string) error { return errors.Join(os.WriteFile(p+"2", []byte("x"), 0o600), os.Rename(p+"2", p)) },
		"emptied":  func(p string) error { return os.Truncate(p, 0) },
		"appended to": func(p string) error {
			f, err := os.OpenFile(p, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteString("hello\n")
			return errors.Join(err, f.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			j := open(t, dir)
			fill(t, j)
			if err := touch(j.path); err != nil {
				t.Fatal(err)
			}
			if _, err := j.Attach(Attachment{Handle: ipam.Handle{Pod: "late"}, Addrs: []netip.Addr{addr.Next()}}); err != nil {
				t.Fatal(err)
			}
			want := j.State()
			if diff := cmp.Diff(want, open(t, dir).State(), equal); diff != "" {
				t.Fatal(diff)
			}
		})
	}
}

func TestASecondAgentOnTheSameDirectoryIsRefused(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	if _, err := Open(dir, "n1"); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), dir) {
		t.Fatalf("got %v, want ErrInUse and the directory", err)
	}
}

func TestAnotherNodesJournalIsRefused(t *testing.T) {
	dir := t.TempDir()
	open(t, dir).Close()
	if _, err := Open(dir, "n2"); !errors.Is(err, ErrOtherNode) {
		t.Fatalf("got %v, want ErrOtherNode", err)
	}
}

// A write that fails changes nothing, in memory and on disk.
func TestAFailedWriteDidNotHappen(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	j := open(t, dir)
	t.Cleanup(func() { j.Close(); delete(opened, dir) })
	fill(t, j)
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	for j.Claim(block, Claim{Pool: "default"}) == nil { // until the file's last page is full too
	}
	want := j.State()
	for range 2 {
		if _, err := j.Attach(Attachment{Handle: ipam.Handle{Pod: "x"}}); !errors.Is(err, ErrNotRecorded) || !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("a write to a full disk: %v", err)
		}
	}
	if diff := cmp.Diff(want, j.State(), equal); diff != "" {
		t.Fatal(diff)
	}
	if err := j.Probe(); !errors.Is(err, syscall.ENOSPC) || !errors.Is(j.Problem(), syscall.ENOSPC) {
		t.Errorf("it says %v, and is asked again: %v", j.Problem(), err)
	}
	if err := errors.Join(os.Remove(ballast), j.Probe(), j.Problem(), j.Claim(block, Claim{Pool: "other"})); err != nil {
		t.Fatalf("the disk is well again: %v", err)
	}
	want.Blocks[block] = Claim{Pool: "other"}
	if diff := cmp.Diff(want, open(t, dir).State(), equal); diff != "" {
		t.Fatal(diff)
	}
}

func TestAReadOnlyStateDirectoryIsNamed(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, 0) })
	if _, err := Open(dir, "n1"); !errors.Is(err, unix.EROFS) || !strings.Contains(err.Error(), dir) {
		t.Fatalf("got %v, want an error that names the directory", err)
	}
}

// Whoever was answered is on disk, whatever group it was in.
func TestManyWritersShareSyncsAndLoseNothing(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	var g errgroup.Group
	const writers, each = 32, 20
	for w := range writers {
		g.Go(func() error {
			for i := range each {
				h := ipam.Handle{Pod: fmt.Sprint(w, "-", i)}
				if _, err := j.Attach(Attachment{Handle: h, Addrs: []netip.Addr{addr}}); err != nil {
					return err
				}
				if _, there := j.Find(h); !there {
					return fmt.Errorf("%v was answered and is not there", h)
				}
				if i%2 == 1 {
					if err := j.Detach(h, Rest{}); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir).State()
	generations := map[uint64]bool{}
	for _, at := range s.Attachments {
		generations[at.Generation] = true
	}
	if len(s.Attachments) != writers*each/2 || len(generations) != len(s.Attachments) || s.Generation != writers*each {
		t.Fatalf("%d attachments, %d generations up to %d", len(s.Attachments), len(generations), s.Generation)
	}
}
