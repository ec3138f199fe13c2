// Package lab is a cluster on one machine: nodes, routers and hosts as
// namespaces, cabled as a topology file says, with real routing daemons, the
// real control plane and the real agent. The demo and the end-to-end tests run
// in it; people use it by the command e2e/cmd/lab.
//
// A lab is what is on the machine, not a process: any process can Open it, use
// it and take it Down, and every step of Up may be the last one before a crash.
//
//	   rack a                                rack b
//	a1 ──┐                                      ┌── b1
//	     ├─ bridge ── tor-a ──(spine)── tor-b ── bridge ─┤
//	a2 ──┘            (FRR)             (BIRD)  └── b2
//	                    └── outside
//	cp ── bridge ── mgmt0 of every node            only for the API server
package lab

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/koratnet/korat/e2e/lab/machine"
	"github.com/koratnet/korat/e2e/lab/router"
	"github.com/koratnet/korat/e2e/lab/topology"
)

// topologies are the plans that come with the lab.
//
//go:embed topologies/*.yaml
var topologies embed.FS

// Topology returns the plan of this name that comes with the lab: "default",
// "dual-stack", "dual-tor" or "ipv6".
func Topology(name string) (*topology.Topology, error) {
	text, err := topologies.ReadFile("topologies/" + name + ".yaml")
	if err != nil {
		return nil, fmt.Errorf("topology %q: want default, dual-stack, dual-tor or ipv6", name)
	}
	return topology.Parse(text)
}

// Options say which lab is meant and what it is made of.
type Options struct {
	// Name tells labs on one machine apart: lower-case letters and digits, default "korat".
	Name string
	// State is the lab's directory, default StateRoot/Name.
	State string
	// Topology is the plan; without one it is Topology("default").
	Topology *topology.Topology
	// Bin is the directory of the binaries korat, korat-cni and controlplane, default "bin".
	Bin string
	// Self is the lab command, default Bin/lab. It is copied into the lab.
	Self string
	// Progress gets a line for each step; nil for none.
	Progress io.Writer
	// Kubelets makes nodes that can run a kubelet and containers, and a control
	// plane for them; nothing runs on the nodes yet, and the API server knows of
	// nothing that is Korat's. Package cluster does the rest.
	Kubelets bool
	// FabricOnly leaves out the control plane and all that runs on nodes.
	FabricOnly bool
}

// StateRoot holds the directories of all labs that name no other. It is not
// below /run, where many systems forbid to execute programs.
const StateRoot = "/var/tmp/korat-lab"

var validName = regexp.MustCompile(`^[a-z][a-z0-9]{0,15}$`)

func (o *Options) complete() error {
	if o.Name == "" {
		o.Name = "korat"
	}
	if !validName.MatchString(o.Name) {
		return fmt.Errorf("lab name %q: want a letter and then letters and digits, 16 at most", o.Name)
	}
	if o.State == "" {
		o.State = filepath.Join(StateRoot, o.Name)
	}
	if o.Bin == "" {
		o.Bin = "bin"
	}
	if o.Self == "" {
		o.Self = filepath.Join(o.Bin, "lab")
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	var err error
	if o.Topology == nil {
		if o.Topology, err = Topology("default"); err != nil {
			return fmt.Errorf("bug: default topology: %w", err)
		}
	}
	// Below /proc/PID/root and in other mount namespaces a relative path means something else.
	if o.State, err = filepath.Abs(o.State); err != nil {
		return err
	}
	for _, d := range machine.OwnDirs {
		if strings.HasPrefix(o.State+"/", d+"/") {
			return fmt.Errorf("lab directory %s: want one that is not below %s, which machines have of their own", o.State, d)
		}
	}
	o.Bin, err = filepath.Abs(o.Bin)
	return err
}

// Lab is a lab that is up, wholly or in part.
type Lab struct {
	Options
	// Client speaks to the API server as the cluster's admin; nil with FabricOnly.
	Client   client.Client
	machines map[string]*machine.Machine
}

// Up makes the lab and returns when it is ready for use: all machines run, the
// routers' sessions are established, and unless FabricOnly the nodes are Ready.
// When it fails, what was made stays for a look; Down removes it.
func Up(ctx context.Context, o Options) (*Lab, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	l := &Lab{Options: o, machines: map[string]*machine.Machine{}}
	type step struct {
		what string
		do   func(context.Context) error
	}
	steps := []step{
		{"files", l.makeFiles},
		{"machines", l.makeMachines},
		{"fabric", l.makeFabric},
	}
	if !o.FabricOnly {
		steps = append(steps, step{"control plane", l.makeControlPlane})
	}
	if !o.FabricOnly && !o.Kubelets {
		steps = append(steps, step{"cluster", l.makeCluster}, step{"nodes", l.makeNodes})
	}
	for _, s := range steps {
		if err := s.do(ctx); err != nil {
			return l, fmt.Errorf("lab %s: %s: %w", o.Name, s.what, err)
		}
	}
	return l, nil
}

// Open finds a lab that is up. Of o only Name and State matter.
func Open(o Options) (*Lab, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	t, err := topology.Load(filepath.Join(o.State, topologyFile))
	if err != nil {
		return nil, fmt.Errorf("lab %s is not up: %w", o.Name, err)
	}
	o.Topology = t
	l := &Lab{Options: o, machines: map[string]*machine.Machine{}}
	for _, name := range l.Machines() {
		m, err := machine.Open(l.machineDir(name))
		if err != nil {
			return nil, fmt.Errorf("lab %s: %w", o.Name, err)
		}
		l.machines[name] = m
	}
	if _, err := os.Stat(l.Kubeconfig()); err != nil {
		l.FabricOnly = true
		return l, nil
	}
	return l, l.connect()
}

// Down ends and removes everything of the lab. It needs nothing of what Up
// returned, works after any crash and on a lab that is not there.
func Down(_ context.Context, o Options) error {
	if err := o.complete(); err != nil {
		return err
	}
	if err := machine.Destroy(netnsPrefix(o.Name)); err != nil {
		return fmt.Errorf("lab %s: %w", o.Name, err)
	}
	if err := os.RemoveAll(o.State); err != nil {
		return fmt.Errorf("lab %s: %w", o.Name, err)
	}
	os.Remove(StateRoot) // only succeeds when this was the last lab
	return nil
}

// Down is the function Down for this lab.
func (l *Lab) Down(ctx context.Context) error { return Down(ctx, l.Options) }

// Machine returns a node, router, host or the control plane by its name, nil
// if there is none.
func (l *Lab) Machine(name string) *machine.Machine { return l.machines[name] }

const topologyFile = "topology.yaml"

// netnsPrefix starts the names of a lab's network namespaces. Lab names hold
// no dash, so one lab's prefix never starts another's.
func netnsPrefix(lab string) string { return "kl-" + lab + "-" }

func (l *Lab) netns(name string) string { return netnsPrefix(l.Name) + name }

func (l *Lab) machineDir(name string) string { return filepath.Join(l.State, "machines", name) }

func (l *Lab) binDir() string { return filepath.Join(l.State, "bin") }

func (l *Lab) say(format string, args ...any) { fmt.Fprintf(l.Progress, "lab: "+format+"\n", args...) }

// Machines lists the names of all machines: the control plane, then nodes,
// routers and hosts.
func (l *Lab) Machines() []string {
	names := []string{topology.ControlPlane}
	for _, n := range l.Topology.Nodes() {
		names = append(names, n.Name)
	}
	for _, r := range l.Topology.Routers() {
		names = append(names, r.Name)
	}
	for _, h := range l.Topology.Hosts {
		names = append(names, h.Name)
	}
	return names
}

func (l *Lab) makeFiles(context.Context) error {
	if err := os.MkdirAll(filepath.Dir(l.State), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(l.State, 0o755); err != nil {
		return fmt.Errorf("it is up already, or was not taken down: %w", err)
	}
	if err := l.writeTopology(); err != nil {
		return err
	}
	return l.installBinaries()
}

func (l *Lab) writeTopology() error {
	b, err := yaml.Marshal(l.Topology)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(l.State, topologyFile), b, 0o644)
}

// installBinaries copies what machines run into the lab, so that a rebuild does
// not change a running lab under its feet; StartAgent calls it again.
func (l *Lab) installBinaries() error {
	files := map[string]string{"lab": l.Self}
	switch {
	case l.FabricOnly:
	case l.Kubelets:
		files["controlplane"] = filepath.Join(l.Bin, "kubernetes")
	default:
		files["korat"] = filepath.Join(l.Bin, "korat")
		files["controlplane"] = filepath.Join(l.Bin, "controlplane")
	}
	if err := os.MkdirAll(l.binDir(), 0o755); err != nil {
		return err
	}
	for name, from := range files {
		if err := copyFile(from, filepath.Join(l.binDir(), name)); err != nil {
			return fmt.Errorf("binary %s: %w", name, err)
		}
	}
	return nil
}

// copyFile puts a copy at to in one step, so that a running program of that
// name keeps its old file.
func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	return os.Rename(out.Name(), to)
}

func (l *Lab) makeMachines(ctx context.Context) error {
	for _, n := range l.Topology.Nodes() {
		if err := l.makeNode(ctx, n.Name); err != nil {
			return err
		}
	}
	sysctls := map[string]map[string]string{}
	for _, r := range l.Topology.Routers() {
		sysctls[r.Name] = merge(forward, router.Sysctls())
	}
	for _, name := range l.Machines() {
		if l.machines[name] != nil {
			continue
		}
		if err := l.makeMachine(ctx, machine.Spec{Name: name, Sysctls: merge(common, sysctls[name])}); err != nil {
			return err
		}
	}
	l.say("%d machines", len(l.machines))
	return nil
}

func (l *Lab) makeNode(ctx context.Context, name string) error {
	return l.makeMachine(ctx, machine.Spec{Name: name, Sysctls: merge(common, forward), Containers: l.Kubelets})
}

// makeMachine makes a machine as s says, which leaves out what is the same for all.
func (l *Lab) makeMachine(ctx context.Context, s machine.Spec) error {
	s.Netns, s.Dir, s.Bin = l.netns(s.Name), l.machineDir(s.Name), l.binDir()
	s.Init = []string{filepath.Join(l.binDir(), "lab"), InitCommand}
	if err := machine.AddNetns(s.Netns); err != nil {
		return err
	}
	m, err := machine.Create(ctx, s)
	if err != nil {
		return err
	}
	l.machines[s.Name] = m
	return nil
}

// InitCommand is the argument that makes the lab command a machine's init.
const InitCommand = "machine-init"

// common holds for every machine: no reverse path filter, which would break
// equal-cost paths, every hop answers a traceroute, and IPv6 addresses are
// usable at once.
var common = map[string]string{
	"net/ipv4/conf/all/rp_filter":      "0",
	"net/ipv4/conf/default/rp_filter":  "0",
	"net/ipv4/icmp_ratelimit":          "0",
	"net/ipv6/conf/all/accept_dad":     "0",
	"net/ipv6/conf/default/accept_dad": "0",
	"net/ipv6/conf/default/accept_ra":  "0",
}

// forward holds for those that pass on what is not for them.
var forward = map[string]string{"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1"}

func merge(ms ...map[string]string) map[string]string {
	out := map[string]string{}
	for _, m := range ms {
		for k, v := range m {
			out[k] = v
		}
	}
	return out
}

func (l *Lab) makeFabric(ctx context.Context) error {
	if err := wire(l.Topology, l.netns); err != nil {
		return err
	}
	if l.Kubelets {
		if err := placeControlPlane(l.Topology, l.netns); err != nil {
			return err
		}
	}
	if !l.FabricOnly { // first, because it takes longest
		if err := l.launchAPI(); err != nil {
			return err
		}
	}
	for _, r := range l.Topology.Routers() {
		if err := router.Start(ctx, l.machines[r.Name], r); err != nil {
			return err
		}
	}
	if err := l.WaitSpine(ctx); err != nil {
		return err
	}
	l.say("fabric: %d routers, every session between them established", len(l.Topology.Routers()))
	return nil
}

// Leftovers returns an error that names what is still there of a lab that was
// taken down: namespaces, files, or processes that were started from its
// directory.
func Leftovers(o Options) error {
	if err := o.complete(); err != nil {
		return err
	}
	var left []string
	for _, n := range machine.Netnses(netnsPrefix(o.Name)) {
		left = append(left, "network namespace "+n)
	}
	for _, g := range machine.Cgroups(netnsPrefix(o.Name)) {
		left = append(left, "control group "+g)
	}
	if _, err := os.Lstat(o.State); !errors.Is(err, os.ErrNotExist) {
		left = append(left, "directory "+o.State)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	if strings.Contains(string(mounts), o.State+"/") {
		left = append(left, "mounts below "+o.State)
	}
	commands, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, c := range commands {
		if b, _ := os.ReadFile(c); bytes.HasPrefix(b, []byte(o.State+"/")) {
			left = append(left, "process "+filepath.Base(filepath.Dir(c)))
		}
	}
	if len(left) > 0 {
		return fmt.Errorf("left behind: %s", strings.Join(left, ", "))
	}
	return nil
}
