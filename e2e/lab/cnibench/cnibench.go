// Package cnibench measures what a container runtime waits for: ADD and DEL by
// the plugin of a node's own network, beside the same of the reference plugins ptp and
// host-local, in turns on the same node. What counts is the ratio.
package cnibench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"github.com/containernetworking/cni/libcni"
	current "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sync/errgroup"

	"github.com/koratnet/korat/e2e/lab/machine"
)

// Config says what is measured. It runs inside a node of the lab.
type Config struct {
	Count    int // of ADDs and DELs, one after the other, for each network
	Parallel int // of ADDs at once, for each network
	ConfDir  string
	BinDirs  []string
	CacheDir string
}

// reference is the network that is measured beside.
const reference = `{"cniVersion":"1.0.0","name":"reference","plugins":[
	{"type":"ptp","ipMasq":false,"ipam":{"type":"host-local","subnet":"10.199.0.0/16","dataDir":"/run/cnibench"}}]}`

// network is one of the two.
type network struct {
	name     string
	list     *libcni.NetworkConfigList
	add, del []time.Duration
	cpu      time.Duration // processor time of plugins and agent in all of add
	rate     float64       // ADDs a second when many come at once
}

// Run measures and writes a table to w.
func Run(ctx context.Context, c Config, w io.Writer) error {
	own, err := ownNetwork(c.ConfDir)
	if err != nil {
		return err
	}
	ref, err := libcni.ConfListFromBytes([]byte(reference))
	if err != nil {
		return err
	}
	b := newBench(c)
	if b.agent, err = findAgent(); err != nil {
		return err
	}
	networks := []*network{{name: "ptp + host-local", list: ref}, {name: own.Name, list: own}}
	for i := range warm + c.Count {
		for _, n := range networks {
			if i == warm {
				n.add, n.del, n.cpu = nil, nil, 0
			}
			if err := b.once(ctx, n, i); err != nil {
				return fmt.Errorf("%s: %w", n.name, err)
			}
		}
	}
	for _, n := range networks {
		if err := b.storm(ctx, n); err != nil {
			return fmt.Errorf("%s: %w", n.name, err)
		}
	}
	table(w, networks)
	return b.tidy()
}

// warm is how many pods of each network come before those that count: the first
// finds no directory, no table, no block.
const warm = 2

// ownNetwork is the network of the node, without what it chains: the reference
// chains nothing either.
func ownNetwork(dir string) (*libcni.NetworkConfigList, error) {
	files, err := libcni.ConfFiles(dir, []string{".conflist"})
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("%s has no network configuration (%w)", dir, err)
	}
	own, err := libcni.ConfListFromFile(slices.Min(files))
	if err != nil {
		return nil, err
	}
	own.Plugins = own.Plugins[:1]
	return own, nil
}

// bench attaches pods. Their namespaces stay until tidy: the kernel takes long to
// remove one, in the background, and whoever changes interfaces meanwhile waits.
type bench struct {
	Config
	cni  *libcni.CNIConfig
	used *[]string // namespaces
	// agent is the process of the node's agent, which works for its plugin.
	agent int
}

func newBench(c Config) bench {
	return bench{Config: c, cni: libcni.NewCNIConfigWithCacheDir(c.BinDirs, c.CacheDir, nil), used: new([]string)}
}

func (b bench) tidy() error {
	var errs []error
	for _, name := range *b.used {
		errs = append(errs, machine.RemoveNetns(name))
	}
	return errors.Join(errs...)
}

// pod makes a sandbox to attach.
func pod(name string) (*libcni.RuntimeConf, error) {
	if err := machine.AddNetns(name); err != nil {
		return nil, err
	}
	return runtimeConf(name), nil
}

func runtimeConf(name string) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{
		ContainerID: name, NetNS: machine.NetnsPath(name), IfName: "eth0",
		Args: [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "bench"}, {"K8S_POD_NAME", name}},
	}
}

// add attaches a sandbox and returns its first address.
func (b bench) add(ctx context.Context, n *network, rt *libcni.RuntimeConf) (netip.Addr, error) {
	r, err := b.cni.AddNetworkList(ctx, n.list, rt)
	if err != nil {
		return netip.Addr{}, err
	}
	res, err := current.NewResultFromResult(r)
	if err != nil || len(res.IPs) == 0 {
		return netip.Addr{}, fmt.Errorf("result of %s: %v (%w)", rt.ContainerID, res, err)
	}
	addr, _ := netip.AddrFromSlice(res.IPs[0].Address.IP)
	return addr.Unmap(), nil
}

// settle is how long everything rests before what is measured: the kernel and the
// agent go on with an interface after whoever made or removed it was answered.
const settle = 50 * time.Millisecond

// once measures one ADD and one DEL.
func (b bench) once(ctx context.Context, n *network, i int) error {
	name := fmt.Sprintf("bench-%s-%d", n.list.Name, i)
	rt, err := pod(name)
	if err != nil {
		return err
	}
	*b.used = append(*b.used, name)
	time.Sleep(settle)
	worked, err := b.processor()
	if err != nil {
		return err
	}
	began := time.Now()
	if _, err := b.cni.AddNetworkList(ctx, n.list, rt); err != nil {
		return err
	}
	n.add = append(n.add, time.Since(began))
	after, err := b.processor()
	if err != nil {
		return err
	}
	n.cpu += after - worked
	time.Sleep(settle)
	began = time.Now()
	if err := b.cni.DelNetworkList(ctx, n.list, rt); err != nil {
		return err
	}
	n.del = append(n.del, time.Since(began))
	return nil
}

// storm measures many ADDs at once, as when a node gets its pods back.
func (b bench) storm(ctx context.Context, n *network) error {
	pods := make([]*libcni.RuntimeConf, b.Parallel)
	for i := range pods {
		var err error
		if pods[i], err = pod(fmt.Sprintf("storm-%s-%d", n.list.Name, i)); err != nil {
			return err
		}
	}
	each := func(do func(context.Context, *libcni.RuntimeConf) error) error {
		g, ctx := errgroup.WithContext(ctx)
		for _, rt := range pods {
			g.Go(func() error { return do(ctx, rt) })
		}
		return g.Wait()
	}
	began := time.Now()
	err := each(func(ctx context.Context, rt *libcni.RuntimeConf) error {
		_, err := b.cni.AddNetworkList(ctx, n.list, rt)
		return err
	})
	if err != nil {
		return err
	}
	n.rate = float64(b.Parallel) / time.Since(began).Seconds()
	return each(func(ctx context.Context, rt *libcni.RuntimeConf) error {
		if err := b.cni.DelNetworkList(ctx, n.list, rt); err != nil {
			return err
		}
		return machine.RemoveNetns(rt.ContainerID)
	})
}

func table(w io.Writer, networks []*network) {
	fmt.Fprintf(w, "%-18s %10s %10s %10s %10s %10s %12s\n", "", "ADD p50", "ADD p99", "ADD CPU", "DEL p50", "DEL p99", "ADDs/s at once")
	for _, n := range networks {
		fmt.Fprintf(w, "%-18s %10s %10s %10s %10s %10s %12.0f\n", n.name, at(n.add, 50), at(n.add, 99), n.work(), at(n.del, 50), at(n.del, 99), n.rate)
	}
	ref, own := networks[0], networks[1]
	ratio := func(a, b time.Duration) string { return fmt.Sprintf("%.2f", float64(a)/float64(b)) }
	fmt.Fprintf(w, "%-18s %10s %10s %10s %10s %10s %12.1f\n", "ratio",
		ratio(at(own.add, 50), at(ref.add, 50)), ratio(at(own.add, 99), at(ref.add, 50)), ratio(own.work(), ref.work()),
		ratio(at(own.del, 50), at(ref.del, 50)), ratio(at(own.del, 99), at(ref.del, 50)), own.rate/ref.rate)
	fmt.Fprintln(w, "The p99 is divided by the median of the reference. CPU is the mean of what plugins and agent worked until the answer.")
}

// work is what an ADD cost.
func (n *network) work() time.Duration {
	return (n.cpu / time.Duration(max(len(n.add), 1))).Round(10 * time.Microsecond)
}

// at returns the percentile p of all.
func at(all []time.Duration, p int) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[min(len(all)-1, len(all)*p/100)].Round(10 * time.Microsecond)
}
