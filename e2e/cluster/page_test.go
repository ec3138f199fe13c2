package cluster_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/koratnet/korat/e2e/cluster"
)

// page is docs/install.md: what it says is what the tests do.
type page struct {
	*testing.T
	dir     string // of the programs that commands call
	cluster *cluster.Cluster
}

func newPage(t *testing.T, c *cluster.Cluster) *page {
	t.Helper()
	p := &page{t, t.TempDir(), c}
	for name, program := range map[string]string{"kubectl": "kubernetes", "helm": "helm"} {
		path, err := filepath.Abs(filepath.Join(bin, program))
		if err == nil {
			err = os.Symlink(path, filepath.Join(p.dir, name))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// commands returns the blocks of shell commands of a section.
func (p *page) commands(section string) []string {
	p.Helper()
	text, err := os.ReadFile("../../docs/install.md")
	if err != nil {
		p.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "\n## "+section+"\n")
	if !found {
		p.Fatalf("the page has no section %q", section)
	}
	rest, _, _ = strings.Cut(rest, "\n## ")
	var blocks []string
	for {
		_, after, more := strings.Cut(rest, "```sh\n")
		if !more {
			return blocks
		}
		block, next, _ := strings.Cut(after, "```\n")
		blocks, rest = append(blocks, block), next
	}
}

// run runs commands as the page's reader would, in the project's directory, with
// more variables of the form NAME=VALUE.
func (p *page) run(ctx context.Context, commands string, variables ...string) string {
	p.Helper()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", commands)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), append(variables, "KUBECONFIG="+p.cluster.Kubeconfig(), "PATH="+p.dir+":"+os.Getenv("PATH"), "HELM_CACHE_HOME="+p.dir, "HELM_CONFIG_HOME="+p.dir, "HELM_DATA_HOME="+p.dir)...)
	cmd.WaitDelay = 10 * time.Second // when ctx ends, a program of the shell's may go on
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Run(); err != nil {
		p.Fatalf("%s: %v\n%s%s", commands, err, &out, &complaints)
	}
	return out.String()
}

// on runs commands on a node, as root.
func (p *page) on(ctx context.Context, node, commands string) string {
	p.Helper()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, "/bin/sh", "-euc", commands)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := p.cluster.Machine(node).Run(cmd); err != nil {
		p.Fatalf("%s on %s: %v\n%s", commands, node, err, &out)
	}
	return out.String()
}
