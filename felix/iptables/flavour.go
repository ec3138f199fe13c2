package iptables

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/desired"
	"github.com/koratnet/korat/felix/kernel/xtables"
	"github.com/koratnet/korat/policy/ir"
)

// Flavour is which of the kernel's two rule engines the iptables programs speak
// to. All programs of a node must use the same one, or packets are judged twice.
type Flavour string

// Auto takes what kube-proxy and kubelet use, see Detect.
const (
	Auto   Flavour = ""
	NFT    Flavour = "nft"
	Legacy Flavour = "legacy"
)

// flavourOf returns the flavour that settings ask for.
func flavourOf(f desired.Flavour) Flavour {
	switch f {
	case desired.NFTFlavour:
		return NFT
	case desired.LegacyFlavour:
		return Legacy
	}
	return Auto
}

// other returns the flavour that is not f.
func (f Flavour) other() Flavour {
	if f == NFT {
		return Legacy
	}
	return NFT
}

// hints are the chains by which kubelet tells every other program on the node
// which flavour the node uses. They are in the mangle table.
var hints = []string{"KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY"}

// Detect returns the flavour in which kubelet or kube-proxy have left their
// chains, in either family, and where they have not, the one that the plain name
// "iptables" stands for here. It reads the network namespace of its thread.
func Detect(ctx context.Context) (Flavour, error) {
	for _, flavour := range []Flavour{NFT, Legacy} {
		for _, f := range []ir.Family{ir.IPv4, ir.IPv6} {
			found, err := hinted(ctx, tool{family: f, flavour: flavour})
			if err != nil {
				return Auto, fmt.Errorf("look for kubelet's chains: %w", err)
			}
			if found {
				return flavour, nil
			}
		}
	}
	out, err := exec.CommandContext(ctx, "iptables", "--version").CombinedOutput()
	if err != nil {
		return Auto, fmt.Errorf("ask iptables for its version: %w", err)
	}
	if bytes.Contains(out, []byte("nf_tables")) {
		return NFT, nil
	}
	return Legacy, nil
}

func hinted(ctx context.Context, t tool) (bool, error) {
	if _, err := t.path("-restore"); err != nil {
		return false, nil // not installed: we could not use it
	}
	found := false
	look := func(chain string) bool {
		found = found || slices.Contains(hints, chain)
		return false
	}
	if t.flavour == Legacy {
		_, err := xtables.Legacy(t.family, "mangle", look)
		return found, err
	}
	n, err := xtables.OpenNFT(t.family)
	if err != nil {
		return false, err
	}
	defer n.Close()
	if _, err = n.Table("mangle", look); errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return false, nil // the kernel has no nf_tables
	}
	return found, err
}

// tool starts the iptables programs of one family and flavour.
type tool struct {
	family  ir.Family
	flavour Flavour
}

// Bounds of one program run, beside what much input takes, and of its wait for the
// lock that legacy needs.
const (
	runTimeout  = 30 * time.Second
	bytesSecond = 100_000 // of input, at least, on a busy machine
	lockSeconds = "5"
)

// path finds the program with the flavour in its name, or under the plain name
// where a distribution ships only one flavour.
func (t tool) path(suffix string) (string, error) {
	base := "iptables"
	if t.family == ir.IPv6 {
		base = "ip6tables"
	}
	path, err := exec.LookPath(base + "-" + string(t.flavour) + suffix)
	if errors.Is(err, exec.ErrNotFound) && t.plainIs(base) {
		return exec.LookPath(base + suffix)
	}
	return path, err
}

func (t tool) plainIs(base string) bool {
	out, err := exec.Command(base, "--version").CombinedOutput()
	return err == nil && bytes.Contains(out, []byte("nf_tables")) == (t.flavour == NFT)
}

// runError is the failure of a program that ran.
type runError struct {
	what, stderr string
	err          error
}

func (e *runError) Error() string {
	return fmt.Sprintf("%s: %v: %s", e.what, e.err, strings.Join(strings.Fields(e.stderr), " "))
}

func (e *runError) Unwrap() error { return e.err }

func (t tool) run(ctx context.Context, stdin []byte, suffix string, args ...string) ([]byte, error) {
	path, err := t.path(suffix)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, runTimeout+time.Duration(len(stdin)/bytesSecond)*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	// When the agent is killed, what it began must not change the kernel after the
	// next one has read it. The signal comes when the thread ends that has started
	// the program.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, &runError{what: strings.Join(append([]string{path}, args...), " "), stderr: stderr.String(), err: err}
	}
	return stdout.Bytes(), nil
}

// printed prints our rules in a chain, in the words that remove them.
func (t tool) printed(ctx context.Context, table, chain string) ([]string, error) {
	out, err := t.run(ctx, nil, "", "--wait", lockSeconds, "-t", table, "-S", chain)
	var bodies []string
	for line := range strings.Lines(string(out)) {
		if body, ok := strings.CutPrefix(strings.TrimSpace(line), "-A "+chain+" "); ok && ruleHash(line) != "" {
			bodies = append(bodies, body)
		}
	}
	return bodies, err
}

// save prints a table, which makes it where it is not there.
func (t tool) save(ctx context.Context, table string) ([]byte, error) {
	return t.run(ctx, nil, "", "-t", table, "-S")
}

// incompatible reports whether a table could not be printed because of rules that
// iptables has no words for.
func incompatible(err error) bool {
	var failed *runError
	return errors.As(err, &failed) && strings.Contains(failed.stderr, "incompatible")
}

// restore makes a script so, all of it or nothing.
func (t tool) restore(ctx context.Context, script []byte) error {
	_, err := t.run(ctx, script, "-restore", "--noflush", "--wait", lockSeconds)
	return err
}

// head returns the hashes of ours at the head of a chain; not of legacy.
func (t tool) head(table, chain string) ([]string, error) {
	n, err := xtables.OpenNFT(t.family)
	if err != nil {
		return nil, err
	}
	defer n.Close()
	rules, err := n.Rules(table, chain)
	return leading(hashesOf(rules)), err
}
