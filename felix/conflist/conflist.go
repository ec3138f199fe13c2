// Package conflist writes the file that tells the container runtime to use
// Korat: the network configuration list of the CNI specification, in the
// directory where kubelet's runtime looks for it. A node whose file is missing is
// not Ready to Kubernetes, so the file is the last thing to appear, and it is
// never taken away: pods that run need it for their DEL.
package conflist

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/containernetworking/cni/pkg/invoke"

	"github.com/koratnet/korat/felix/cniserver/wire"
)

// Plugin is the name of our program, among those of other networks.
const Plugin = "korat-cni"

// Name is the file's. Runtimes take the first of their directory, by name.
const Name = "10-korat.conflist"

// every is how often the file is looked after: within that time a file that
// somebody removed or changed is as it should be.
const every = 5 * time.Second

// Config is what an Installer needs.
type Config struct {
	Dir    string // of network configurations, usually /etc/cni/net.d
	BinDir string // of CNI plugins, usually /opt/cni/bin
	// Chain are plugins of containernetworking that run after ours, in order, such
	// as portmap and bandwidth. One that is not in BinDir is left out until it is,
	// and the versions of CNI that one does not speak are not offered: a runtime
	// fails every pod whose chain it cannot run.
	Chain  []string
	Socket string       // of the agent, absolute
	Ready  func() error // nil when the node can serve pods
	Log    *slog.Logger
}

// Installer keeps the file. Make it with New.
type Installer struct {
	Config
	asked   map[string]plugin
	missing string // what was last told about the chain
	before  string // and about networks that come first
}

// New returns an Installer.
func New(c Config) *Installer { return &Installer{Config: c, asked: map[string]plugin{}} }

// Run keeps the file until ctx ends. It writes it for the first time when Ready
// says so; a file that is there already, of an earlier life of the agent, is
// brought up to date at once.
func (i *Installer) Run(ctx context.Context) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	soon := time.NewTicker(every / 25)
	defer soon.Stop()
	for {
		there, err := i.Keep(ctx)
		if err = errors.Join(err, i.tellFirst()); err != nil {
			i.Log.Warn("network configuration for the container runtime", "error", err)
		}
		wait := tick.C
		if !there {
			wait = soon.C // a node waits for its first file
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Keep looks after the file once and reports whether it is there.
func (i *Installer) Keep(ctx context.Context) (there bool, err error) {
	path := filepath.Join(i.Dir, Name)
	have, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, err
	}
	there = err == nil
	if !there && i.Ready() != nil {
		return false, nil
	}
	want, err := i.content(ctx)
	if err != nil || bytes.Equal(have, want) {
		return there, err
	}
	if err := replace(path, want); err != nil {
		return there, err
	}
	i.Log.Info("network configuration for the container runtime is written", "file", path)
	return true, nil
}

// tellFirst says when the container runtime takes another network for new pods.
func (i *Installer) tellFirst() error {
	before, err := i.first()
	if err != nil || before == i.before {
		return err
	}
	if i.before = before; before == "" {
		i.Log.Info("no network comes before ours any more")
		return nil
	}
	i.Log.Warn("the container runtime uses another network for new pods: remove its file when the node is to have ours", "file", filepath.Join(i.Dir, before))
	return nil
}

// first returns the name of the file that the runtime takes, empty: ours.
func (i *Installer) first() (string, error) {
	all, err := os.ReadDir(i.Dir) // by name, as runtimes do
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	for _, f := range all {
		switch filepath.Ext(f.Name()) {
		case ".conf", ".conflist", ".json":
			if f.Name() < Name {
				return f.Name(), nil
			}
		}
	}
	return "", nil
}

// list is a network configuration list. CNIVersion is for runtimes that do not
// know CNIVersions, of which others take the newest that they speak.
type list struct {
	CNIVersion  string           `json:"cniVersion"`
	CNIVersions []string         `json:"cniVersions"`
	Name        string           `json:"name"`
	Plugins     []map[string]any `json:"plugins"`
}

// safe is the newest version that runtimes of before 2024 speak.
const safe = "1.0.0"

func (i *Installer) content(ctx context.Context) ([]byte, error) {
	own := map[string]any{"type": Plugin}
	if i.Socket != wire.DefaultSocket { // the plugin starts sooner if it has nothing to read
		own["socket"] = i.Socket
	}
	l := list{CNIVersions: wire.Versions, Name: wire.DefaultNetwork, Plugins: []map[string]any{own}}
	missing := ""
	for _, name := range i.Chain {
		versions, err := i.speaks(ctx, name)
		if err != nil {
			missing = fmt.Sprintf("%s: %v", name, err)
			continue
		}
		l.CNIVersions = slices.DeleteFunc(slices.Clone(l.CNIVersions), func(v string) bool { return !slices.Contains(versions, v) })
		l.Plugins = append(l.Plugins, chained(name))
	}
	if missing != i.missing && missing != "" {
		i.Log.Warn("CNI plugin cannot be used: pods do without it", "plugin", missing)
	}
	i.missing = missing
	if len(l.CNIVersions) == 0 {
		return nil, fmt.Errorf("the CNI plugins %v have no version in common with ours, %v", i.Chain, wire.Versions)
	}
	l.CNIVersion = l.CNIVersions[len(l.CNIVersions)-1]
	if slices.Contains(l.CNIVersions, safe) {
		l.CNIVersion = safe
	}
	out, err := json.MarshalIndent(l, "", "  ")
	return append(out, '\n'), err
}

// plugin is what was asked of a program when it had this time of change.
type plugin struct {
	changed  time.Time
	versions []string
}

// speaks returns the versions of CNI that the plugin name speaks.
func (i *Installer) speaks(ctx context.Context, name string) ([]string, error) {
	path := filepath.Join(i.BinDir, name)
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if p, known := i.asked[name]; known && p.changed.Equal(info.ModTime()) {
		return p.versions, nil
	}
	ctx, cancel := context.WithTimeout(ctx, every)
	defer cancel()
	answer, err := invoke.GetVersionInfo(ctx, path, nil)
	if err != nil {
		return nil, fmt.Errorf("ask %s for its versions: %w", path, err)
	}
	i.asked[name] = plugin{info.ModTime(), answer.SupportedVersions()}
	return answer.SupportedVersions(), nil
}

// chained returns the configuration of a plugin behind ours. Each gets from the
// runtime what it declares a capability for.
func chained(name string) map[string]any {
	p := map[string]any{"type": name}
	switch name {
	case "portmap": // hostPort
		p["capabilities"] = map[string]bool{"portMappings": true}
	case "bandwidth": // kubernetes.io/ingress-bandwidth and egress-bandwidth
		p["capabilities"] = map[string]bool{"bandwidth": true}
	}
	return p
}

// replace makes path hold data, whole or not at all. The name in between has an
// ending that no runtime reads.
func replace(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(tmp))
	}
	return nil
}
