package pod

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/koratnet/korat/felix/kernel/nlsock"
)

// retiredGroup marks, in the kernel (`ip link show group`), the veths that
// nobody needs any more. The mark outlives the agent.
const retiredGroup = 0x6b6f7261

// Retire says that nobody needs the veth with the host side iface any more: it
// is no attachment from then on, and Reap removes it. The kernel takes some 20 ms
// for every removal and almost nothing for this. Absent is success.
func (h *Host) Retire(iface string) error {
	link, err := h.nl.LinkByName(iface)
	if err == nil {
		err = h.nl.LinkSetGroup(link, retiredGroup)
	}
	if err != nil && !isGone(err) {
		return fmt.Errorf("retire %s: %w", iface, err)
	}
	return nil
}

func retired(l netlink.Link) bool { return l.Attrs().Group == retiredGroup }

// Reap removes all retired veths in one request: the kernel waits once for all.
func (h *Host) Reap() error {
	h.reaping.Lock()
	defer h.reaping.Unlock()
	r := nlsock.NewRequest(unix.RTM_DELLINK, 0, make([]byte, unix.SizeofIfInfomsg))
	err := h.reaper.Do(r.Uint32(unix.IFLA_GROUP, retiredGroup))
	if err != nil && !errors.Is(err, unix.ENODEV) { // there is none
		return fmt.Errorf("remove retired interfaces: %w", err)
	}
	return nil
}
