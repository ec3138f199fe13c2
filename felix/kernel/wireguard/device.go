package wireguard

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/koratnet/korat/felix/detached"
	"github.com/koratnet/korat/felix/kernel/owned"
)

const (
	// uid is what processes in user space run as: nobody's, and not the speaker's.
	uid = 65531
	// startTime is how long a process may take until it answers, pollEvery how often
	// it is asked meanwhile.
	startTime = 10 * time.Second
	pollEvery = 5 * time.Millisecond
	// defaultMTU is for an Ethernet below: a tun begins with the MTU of one.
	defaultMTU = 1420
)

// errUnable says that nobody encrypts for this agent, which nothing changes while it
// lives.
var errUnable = errors.New("the kernel has no WireGuard, and the agent lacks what it takes to encrypt in user space")

// unable returns err, of what a process in user space takes, as errUnable if it says
// that the agent may not do that.
func unable(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: %w", errUnable, err)
	}
	return err
}

// openTuns opens the device of tuns. A container may not have it.
func openTuns() (*os.File, error) {
	tuns, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnable, err)
	}
	return tuns, nil
}

// find finds the interface of e, or makes it, and what tells it what to do.
func (r *Reconciler) find(ctx context.Context, e *end) (err error) {
	if e.want == nil {
		e.control = nil
		return nil
	}
	if !e.unsure {
		return nil
	}
	r.unread = true
	name := e.kind.Device()
	e.control = nil
	if e.link, err = r.existing(name); err != nil {
		return err
	}
	if e.link == nil {
		if e.link, err = r.create(name); err != nil {
			return err
		}
	}
	if err := owned.SetMTU(r.handle, e.link, e.want.MTU); err != nil {
		return err
	}
	switch e.link.Type() {
	case "wireguard":
		e.control, err = r.kernel(name)
	case "tuntap":
		e.control, err = r.process(ctx, name)
	default: // with our alias
		err = errors.Join(fmt.Errorf("is of type %s: making it anew", e.link.Type()), owned.Remove(r.handle, e.link))
	}
	if err != nil {
		return err
	}
	return r.identify(e)
}

// existing returns the interface of that name, nil if there is none. One that looks
// as if who made it was killed before saying whose it is becomes ours.
func (r *Reconciler) existing(name string) (netlink.Link, error) {
	link, err := owned.Find(r.handle, name)
	if errors.Is(err, owned.ErrForeign) && r.unfinished(link) {
		return link, owned.Claim(r.handle, link)
	}
	return link, err
}

// unfinished reports whether link is as create makes it and nobody has used it.
func (r *Reconciler) unfinished(link netlink.Link) bool {
	if link.Attrs().Alias != "" || link.Attrs().Flags&net.FlagUp != 0 {
		return false
	}
	switch l := link.(type) {
	case *netlink.Tuntap:
		return l.Owner == uid && l.Group == uid
	case *netlink.Wireguard:
		c, err := r.kernel(l.Name)
		if err != nil {
			return false
		}
		d, err := c.read()
		return err == nil && d.PrivateKey == wgtypes.Key{}
	}
	return false
}

// remove takes the interface of that name away, if it is ours.
func (r *Reconciler) remove(name string) error {
	link, err := r.existing(name)
	if errors.Is(err, owned.ErrForeign) || link == nil && err == nil {
		return nil
	}
	if err != nil {
		return err
	}
	return owned.Remove(r.handle, link)
}

// create makes the interface in the kernel, or where that knows no WireGuard a tun
// that stays and that the process may open.
func (r *Reconciler) create(name string) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	link, err := owned.Create(r.handle, &netlink.Wireguard{LinkAttrs: attrs})
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return link, err
	}
	tuns, err := openTuns()
	if err != nil {
		return nil, err
	}
	defer tuns.Close()
	link, err = owned.Create(r.handle, &netlink.Tuntap{
		LinkAttrs: attrs, Mode: netlink.TUNTAP_MODE_TUN, Flags: netlink.TUNTAP_NO_PI | netlink.TUNTAP_VNET_HDR,
		Owner: uid, Group: uid,
	})
	if err != nil {
		return nil, unable(fmt.Errorf("tun: %w", err))
	}
	return link, owned.SetMTU(r.handle, link, defaultMTU)
}

func (r *Reconciler) kernel(name string) (control, error) {
	if r.client == nil {
		// Not before: it looks once whether the kernel knows WireGuard, which it
		// learns with the first interface.
		client, err := wgctrl.New()
		if err != nil {
			return nil, err
		}
		r.client = client
	}
	return kernel{r.client, name}, nil
}

// process returns the control of an interface in user space, when its process
// answers. If none does, it starts one.
func (r *Reconciler) process(ctx context.Context, name string) (control, error) {
	p := process{socketOf(r.cfg.RunDir, name), r.cfg.Version, greeting}
	_, err := p.read()
	if err == nil {
		return p, nil
	}
	tuns, err := openTuns()
	if err != nil {
		return nil, err
	}
	defer tuns.Close()
	if err := detached.Directory(dirOf(r.cfg.RunDir), uid); err != nil {
		return nil, unable(fmt.Errorf("directory of processes: %w", err))
	}
	cmd, err := detached.Process{
		Args: append(slices.Clip(r.cfg.Command), "--device", name, "--run-dir", r.cfg.RunDir), UID: uid, Files: []*os.File{tuns},
	}.Start()
	if err != nil {
		return nil, unable(fmt.Errorf("start the process: %w", err))
	}
	return p, p.await(ctx, cmd)
}

// await returns when the process that was started answers, or has ended.
func (p process) await(ctx context.Context, cmd *exec.Cmd) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTime, errors.New("the process does not answer"))
	ctx, ended := context.WithCancelCause(ctx)
	go func() { // reaps it, if the agent lives that long
		ended(fmt.Errorf("the process ended at once: %w", errors.Join(cmd.Wait(), context.Canceled)))
		cancel()
	}()
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-poll.C:
			if _, err := p.read(); err == nil {
				return nil
			}
		}
	}
}

// identify gives the interface its key and its port, and reads its peers. With another
// key it knows nobody: whoever it has shaken hands with since then has this one.
func (r *Reconciler) identify(e *end) error {
	have, err := e.control.read()
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	private, err := r.cfg.Ring.private(e.want.Key)
	if err != nil {
		return err
	}
	key, port := private.reveal(), int(e.want.Port)
	var c wgtypes.Config
	if have.PrivateKey != key {
		c.PrivateKey, c.ReplacePeers = &key, true
	}
	if have.ListenPort != port {
		c.ListenPort = &port
	}
	if c.PrivateKey != nil || c.ListenPort != nil {
		if err := e.control.write(c); err != nil {
			// In user space the port counts as set although it is another's.
			none := 0
			return errors.Join(fmt.Errorf("set key and port %d: %w", port, err), e.control.write(wgtypes.Config{ListenPort: &none}))
		}
	}
	if c.ReplacePeers {
		have.Peers = nil
	}
	e.resync(have.Peers)
	return nil
}
