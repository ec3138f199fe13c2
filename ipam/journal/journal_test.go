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

func open(t *testing.T, dir string) *Journal {
	t.Helper()
	j, err := Open(dir, "n1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func fill(t *testing.T, j *Journal) {
	t.Helper()
	until := time.Now().Add(time.Hour).Round(0)
	gone := ipam.Handle{Namespace: "ns", Pod: "gone", Sandbox: "c0"}
	_, errA := j.Attach(Attachment{Handle: gone, HostInterface: "kor1", Addrs: []netip.Addr{addr.Next()}})
	_, errB := j.Attach(Attachment{Handle: pod, HostInterface: "kor2", Addrs: []netip.Addr{addr}})
	if err := errors.Join(j.Claim(block, "default"), errA, errB, j.Detach(gone, until)); err != nil {
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
	if len(want.Attachments) != 1 || len(want.Resting) != 1 || want.Generation != 2 {
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

func TestADamagedLineInTheMiddleIsAnErrorThatNamesIt(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	fill(t, j)
	data, _ := os.ReadFile(j.path)
	data[len(data)/2] ^= 1
	if err := os.WriteFile(j.path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, "n1"); err == nil || !strings.Contains(err.Error(), "line ") {
		t.Fatalf("got %v, want an error that names the line", err)
	}
}

func TestAnotherNodesJournalIsRefused(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	if _, err := Open(dir, "n2"); !errors.Is(err, ErrOtherNode) {
		t.Fatalf("got %v, want ErrOtherNode", err)
	}
}

// A write that fails changes nothing, in memory and on disk.
func TestAFailedWriteDidNotHappen(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	fill(t, j)
	want := j.State()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	well := j.file
	j.file = full
	for i := range 2 {
		_, err := j.Attach(Attachment{Handle: ipam.Handle{Pod: "x"}})
		if !errors.Is(err, ErrNotRecorded) || i == 0 && !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("a write to a full disk: %v", err)
		}
	}
	if diff := cmp.Diff(want, j.State(), equal); diff != "" {
		t.Fatal(diff)
	}
	j.file = well
	full.Close()
	if err := j.Claim(block, "other"); err != nil {
		t.Fatalf("the disk is well again: %v", err)
	}
	want.Blocks[block] = "other"
	if diff := cmp.Diff(want, open(t, filepath.Dir(j.path)).State(), equal); diff != "" {
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
					if err := j.Detach(h, time.Time{}); err != nil {
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
