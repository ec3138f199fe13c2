package cniserver_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/koratnet/korat/felix/cniserver"
	"github.com/koratnet/korat/felix/desired"
)

// loseState restarts the agent without its state directory, as an agent that
// learns from the API server that the pods are there.
func (a *agent) loseState(pods ...cniserver.Pod) {
	a.t.Helper()
	a.stop()
	if err := os.RemoveAll(a.state); err != nil {
		a.t.Fatal(err)
	}
	a.start()
	if err := a.server.Adopt(pods); err != nil {
		a.t.Fatal(err)
	}
	for range 2 { // at first it asks whether another agent is alive
		if err := a.alloc.TakeOver(a.t.Context(), a.alloc.Former()); err != nil {
			a.t.Fatal(err)
		}
		a.later.Add(int64(time.Minute))
	}
}

func (a *agent) held() (all []string) {
	for _, u := range a.alloc.Usage() {
		for addr := range u.Held {
			all = append(all, addr.String())
		}
	}
	slices.Sort(all)
	return all
}

func shop(name string, addrs ...string) cniserver.Pod {
	p := cniserver.Pod{Namespace: "shop", Name: name}
	for _, a := range addrs {
		p.Addrs = append(p.Addrs, netip.MustParseAddr(a))
	}
	return p
}

func TestALostStateDirectoryIsRebuiltFromTheKernelAndTheAPI(t *testing.T) {
	a, c := newAgent(t), cni(t)
	web, db := newSandbox(t, "c1", "web"), newSandbox(t, "c2", "db")
	first := add(t, c, a.conf("1.1.0"), web).IPs[0].Address.IP.String()
	second := add(t, c, a.conf("1.1.0"), db).IPs[0].Address.IP.String()
	a.loseState(shop("web"), shop("db"))
	got := a.kernel.addrs()
	slices.Sort(got)
	if want := []string{first, second}; !slices.Equal(got, want) || !slices.Equal(a.held(), want) || !a.kernel.synced {
		t.Fatalf("endpoints %v, held %v (synced %v), want %v", got, a.held(), a.kernel.synced, want)
	}
	if len(a.api.blocks) != 1 {
		t.Errorf("%d blocks, want the former one taken over", len(a.api.blocks))
	}
	next := newSandbox(t, "c3", "next")
	if got := add(t, c, a.conf("1.1.0"), next).IPs[0].Address.IP.String(); got == first || got == second {
		t.Fatalf("%s was handed out while its pod runs", got)
	}
	if err := c.CheckNetworkList(t.Context(), a.conf("1.1.0"), web.rt); err != nil {
		t.Errorf("CHECK of an adopted pod: %v", err)
	}
	// The runtime knows all three; we do not know the sandboxes of two.
	valid := []types.GCAttachment{{ContainerID: "c1", IfName: "eth0"}, {ContainerID: "c2", IfName: "eth0"}, {ContainerID: "c3", IfName: "eth0"}}
	if err := c.GCNetworkList(t.Context(), a.conf("1.1.0"), &libcni.GCArgs{ValidAttachments: valid}); err != nil || len(a.held()) != 3 {
		t.Fatalf("after GC %v are held, error %v", a.held(), err)
	}
	for _, s := range []sandbox{web, db, next} {
		if err := c.DelNetworkList(t.Context(), a.conf("1.1.0"), s.rt); err != nil {
			t.Errorf("DEL: %v", err)
		}
	}
	if len(a.held()) != 0 || len(a.kernel.addrs()) != 0 || len(a.books.State().Attachments) != 0 {
		t.Errorf("after DEL %v are held, %v connected", a.held(), a.kernel.addrs())
	}
}

func TestWithoutTheAPINothingOfARunningPodMayBeRemoved(t *testing.T) {
	a, c := newAgent(t), cni(t)
	add(t, c, a.conf("1.0.0"), newSandbox(t, "c1", "web"))
	a.stop()
	if err := os.RemoveAll(a.state); err != nil {
		t.Fatal(err)
	}
	a.start()
	if a.kernel.synced || len(a.kernel.addrs()) != 0 {
		t.Errorf("synced %v with endpoints %v, though nobody knows whose the interface is", a.kernel.synced, a.kernel.addrs())
	}
}

func TestAPodThatOnlyTheKernelKnowsKeepsItsAddressAndStaysClosed(t *testing.T) {
	a, c := newAgent(t), cni(t)
	addr := add(t, c, a.conf("1.0.0"), newSandbox(t, "c1", "web")).IPs[0].Address.IP.String()
	a.loseState()
	if !slices.Equal(a.held(), []string{addr}) || len(a.kernel.addrs()) != 0 || !a.kernel.synced {
		t.Errorf("held %v, connected %v, want %s held only", a.held(), a.kernel.addrs(), addr)
	}
}

func TestAdoptionDoesNotWaitForAnADDThatWaitsForWhatComesAfterIt(t *testing.T) {
	a, c := newAgent(t), cni(t)
	entered, leave := make(chan struct{}), make(chan struct{})
	a.assigning = func() {
		close(entered)
		<-leave
	}
	web, added := newSandbox(t, "c1", "web"), make(chan struct{})
	go func() {
		defer close(added)
		if _, err := c.AddNetworkList(context.Background(), a.conf("1.1.0"), web.rt); err != nil {
			t.Error(err)
		}
	}()
	<-entered
	adopted := make(chan error, 1)
	go func() {
		if err := a.server.Adopt([]cniserver.Pod{shop("web")}); err != nil {
			adopted <- fmt.Errorf("a pod without an address: %w", err)
			return
		}
		if a.server.Adopt([]cniserver.Pod{shop("web", "10.9.0.7")}) == nil {
			adopted <- errors.New("a pod with an address is adopted while nobody knows whether its ADD goes first")
			return
		}
		adopted <- nil
	}()
	select {
	case err := <-adopted:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("it waits")
	}
	close(leave)
	<-added
	if err := a.server.Adopt([]cniserver.Pod{shop("web")}); err != nil || len(a.held()) != 1 {
		t.Errorf("after the ADD: %v, held %v", err, a.held())
	}
}

func TestAnAddressThatOnlyTheAPIKnowsIsHeldUntilItKnowsItNoMore(t *testing.T) {
	a, c := newAgent(t), cni(t)
	s := newSandbox(t, "c1", "web")
	r := add(t, c, a.conf("1.0.0"), s)
	addr := r.IPs[0].Address.IP.String()
	a.stop()
	a.node.Remove(r.Interfaces[0].Name)
	a.loseState(shop("web", addr))
	there := true
	claimed := func(netip.Addr) bool { return there }
	for i, want := range []int{1, 1, 1, 1, 0} {
		if len(a.held()) != want {
			t.Fatalf("step %d: held %v, want %d", i, a.held(), want)
		}
		there = i < 2
		if err := a.server.Collect(claimed); err != nil {
			t.Fatal(err)
		}
	}
}

// The runtime died with the pod's sandbox, and never said DEL.
func TestItem59APodThatWentWithoutDELIsDetachedAtTheSecondLook(t *testing.T) {
	a, c := newAgent(t), cni(t)
	add(t, c, a.conf("1.0.0"), newSandbox(t, "c1", "stays"))
	gone := add(t, c, a.conf("1.0.0"), newSandbox(t, "c2", "gone"))
	a.node.Remove(gone.Interfaces[0].Name)
	nobody := func(netip.Addr) bool { return false }
	for look, want := range []int{2, 1, 1} {
		if err := a.server.Collect(nobody); err != nil {
			t.Fatal(err)
		}
		if len(a.held()) != want || len(a.kernel.addrs()) != want || len(a.books.State().Attachments) != want {
			t.Errorf("look %d: held %v, connected %v, want %d", look, a.held(), a.kernel.addrs(), want)
		}
	}
}

func TestASecondADDForAnAdoptedPod(t *testing.T) {
	for name, x := range map[string]struct {
		sandbox func(t *testing.T, first sandbox) sandbox
		same    bool
	}{
		"of its sandbox answers the same": {func(_ *testing.T, first sandbox) sandbox { return first }, true},
		"of another sandbox replaces it":  {func(t *testing.T, _ sandbox) sandbox { return newSandbox(t, "c2", "web") }, false},
	} {
		t.Run(name, func(t *testing.T) {
			a, c := newAgent(t), cni(t)
			first := newSandbox(t, "c1", "web")
			was := add(t, c, a.conf("1.0.0"), first).IPs[0].Address.IP.String()
			a.loseState(shop("web"))
			s := x.sandbox(t, first)
			is := add(t, c, a.conf("1.0.0"), s).IPs[0].Address.IP.String()
			if (is == was) != x.same || !slices.Equal(a.held(), []string{is}) {
				t.Fatalf("address %s after %s, held %v", is, was, a.held())
			}
			// A DEL of the first sandbox is late when there is a second one.
			if !x.same {
				if err := c.DelNetworkList(t.Context(), a.conf("1.0.0"), first.rt); err != nil || len(a.held()) != 1 {
					t.Errorf("late DEL: %v, held %v", err, a.held())
				}
			}
			if err := c.DelNetworkList(t.Context(), a.conf("1.0.0"), s.rt); err != nil || len(a.held()) != 0 {
				t.Errorf("DEL: %v, held %v", err, a.held())
			}
		})
	}
}

// The agent was away, or lost its state, as the sandbox went.
func TestADELThatNoJournalKnowsTakesItsVethAlongAndNoOther(t *testing.T) {
	a, c := newAgent(t), cni(t)
	first, second := newSandbox(t, "c1", "web"), newSandbox(t, "c2", "web")
	add(t, c, a.conf("1.0.0"), second)
	a.stop()
	if err := os.RemoveAll(a.state); err != nil {
		t.Fatal(err)
	}
	a.start()
	for _, s := range []sandbox{first, second} {
		_, err := a.node.LinkByName(desired.HostInterface("shop", "web"))
		if err != nil {
			t.Fatalf("before the DEL of %s: %v", s.rt.ContainerID, err)
		}
		if err := c.DelNetworkList(t.Context(), a.conf("1.0.0"), s.rt); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.node.LinkByName(desired.HostInterface("shop", "web")); err == nil {
		t.Error("the veth is left")
	}
}
