package cniserver_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/koratnet/korat/felix/cniserver/wire"
	"github.com/koratnet/korat/felix/kernel/kerneltest"
)

func TestItems11And16APodIsAddedCheckedAndDeletedInEveryVersion(t *testing.T) {
	for _, version := range []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		t.Run(version, func(t *testing.T) {
			a, c, s := newAgent(t), cni(t), newSandbox(t, "c1", "web")
			first := add(t, c, a.conf(version), s)
			if len(first.IPs) != 1 || *first.IPs[0].Interface != 1 || first.Interfaces[1].Sandbox != s.rt.NetNS {
				t.Errorf("result %+v", first)
			}
			if again := add(t, c, a.conf(version), s); again.IPs[0].Address.String() != first.IPs[0].Address.String() {
				t.Errorf("a repeated ADD answered %v after %v", again.IPs[0].Address, first.IPs[0].Address)
			}
			if version >= "0.4.0" {
				if err := c.CheckNetworkList(t.Context(), a.conf(version), s.rt); err != nil {
					t.Errorf("CHECK: %v", err)
				}
				s.ns.Run("ip", "route", "del", "default")
				if err := c.CheckNetworkList(t.Context(), a.conf(version), s.rt); err == nil {
					t.Error("CHECK did not see that the default route is gone")
				}
			}
			for range 2 {
				if err := c.DelNetworkList(t.Context(), a.conf(version), s.rt); err != nil {
					t.Errorf("DEL: %v", err)
				}
			}
			if got := a.kernel.addrs(); len(got) != 0 {
				t.Errorf("after DEL endpoints hold %v", got)
			}
		})
	}
}

func TestItem10RunningPodsGetTheNewMTUAndSoDoNewOnes(t *testing.T) {
	a, c, s := newAgent(t), cni(t), newSandbox(t, "c1", "web")
	add(t, c, a.conf("1.1.0"), s)
	a.mtu.Store(1400)
	if got, err := a.server.FollowMTU(); err != nil || got != 1400 {
		t.Fatal(got, err)
	}
	if got := s.ns.Link("eth0").Attrs().MTU; got != 1400 {
		t.Errorf("the running pod has an MTU of %d, want 1400", got)
	}
	if err := c.CheckNetworkList(t.Context(), a.conf("1.1.0"), s.rt); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	if got := add(t, c, a.conf("1.1.0"), newSandbox(t, "c2", "db")).Interfaces[1].Mtu; got != 1400 {
		t.Errorf("the new pod is told %d, want 1400", got)
	}
}

// TestItem10APodThatIsMadeWhileTheAgentStarts has the MTU that is computed while
// it waits for the kernel.
func TestItem10APodThatIsMadeWhileTheAgentStarts(t *testing.T) {
	a, c, s := newAgent(t), cni(t), newSandbox(t, "c1", "web")
	a.kernel.waited = func() { a.mtu.Store(1440) }
	if got := add(t, c, a.conf("1.1.0"), s).Interfaces[1].Mtu; got != 1440 {
		t.Errorf("the pod is told %d, want 1440", got)
	}
	if got := s.ns.Link("eth0").Attrs().MTU; got != 1440 {
		t.Errorf("the pod has an MTU of %d, want 1440", got)
	}
	if err := c.CheckNetworkList(t.Context(), a.conf("1.1.0"), s.rt); err != nil {
		t.Errorf("CHECK: %v", err)
	}
}

// TestHostLocalAssignsTheAddresses runs the reference plugin behind ours, with a
// range of the node that no pool has.
func TestHostLocalAssignsTheAddresses(t *testing.T) {
	a := newAgent(t)
	c := libcni.NewCNIConfigWithCacheDir([]string{plugin, "/usr/lib/cni"}, t.TempDir(), nil)
	data := t.TempDir()
	conf, err := libcni.ConfListFromBytes(fmt.Appendf(nil, `{"cniVersion":"1.0.0","name":"korat","plugins":[{"type":"korat-cni","socket":%q,
		"ipam":{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":"10.77.0.0/24"}],[{"subnet":"fd00:77::/120"}]]}}]}`, filepath.Join(a.run, "cni.sock"), data))
	if err != nil {
		t.Fatal(err)
	}
	s := newSandbox(t, "c1", "web")
	r := add(t, c, conf, s)
	if len(r.IPs) != 2 || r.IPs[0].Address.String() != "10.77.0.2/32" || r.IPs[1].Address.String() != "fd00:77::2/128" {
		t.Fatalf("addresses are %v", r.IPs)
	}
	if err := c.CheckNetworkList(t.Context(), conf, s.rt); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	a.stop()
	a.start()
	if got := a.kernel.addrs(); len(got) != 2 {
		t.Errorf("a restarted agent knows %v", got)
	}
	a.kernel.refuse = errors.New("no")
	if _, err := c.AddNetworkList(t.Context(), conf, newSandbox(t, "c2", "db").rt); err == nil {
		t.Error("the kernel refuses, and ADD succeeds")
	}
	a.kernel.refuse = nil
	if err := c.DelNetworkList(t.Context(), conf, s.rt); err != nil {
		t.Errorf("DEL: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(data, "korat", "*.*.*.*")); len(left) != 0 {
		t.Errorf("host-local still holds %v", left)
	}
	if got := a.books.State().Attachments; len(got) != 0 {
		t.Errorf("the journal keeps %v", got)
	}
}

func TestItem6ALateDELOfTheFirstSandboxLeavesTheSecondAlone(t *testing.T) {
	a, c := newAgent(t), cni(t)
	first, second := newSandbox(t, "c1", "db-0"), newSandbox(t, "c2", "db-0")
	add(t, c, a.conf("1.0.0"), first)
	want := add(t, c, a.conf("1.0.0"), second)
	if err := c.DelNetworkList(t.Context(), a.conf("1.0.0"), first.rt); err != nil {
		t.Fatal(err)
	}
	if got := a.kernel.addrs(); len(got) != 1 || got[0] != want.IPs[0].Address.IP.String() {
		t.Errorf("endpoints hold %v, want %s", got, want.IPs[0].Address.IP)
	}
	if err := c.CheckNetworkList(t.Context(), a.conf("1.0.0"), second.rt); err != nil {
		t.Error(err)
	}
}

// Its ADD never reached an agent, and its DEL none before the second sandbox ran at
// the same path: process numbers and some runtimes' names of namespaces return.
func TestItem6ALateDELOfASandboxThatNeverWasLeavesItsSuccessorAlone(t *testing.T) {
	a, c := newAgent(t), cni(t)
	second := newSandbox(t, "c2", "web")
	first := *second.rt
	first.ContainerID = "c1"
	add(t, c, a.conf("1.0.0"), second)
	a.stop()
	if err := c.DelNetworkList(t.Context(), a.conf("1.0.0"), &first); err != nil {
		t.Fatal(err)
	}
	a.start()
	if err := c.CheckNetworkList(t.Context(), a.conf("1.0.0"), second.rt); err != nil {
		t.Error(err)
	}
}

func TestWhenTheKernelRefusesNothingIsLeft(t *testing.T) {
	a, c, s := newAgent(t), cni(t), newSandbox(t, "c1", "web")
	a.kernel.refuse = errors.New("rule 3 of policy shop/db is refused")
	_, err := c.AddNetworkList(t.Context(), a.conf("1.0.0"), s.rt)
	if err == nil || !strings.Contains(err.Error(), "policy shop/db") {
		t.Errorf("got %v, want the kernel's reason", err)
	}
	if got := a.books.State().Attachments; len(got) != 0 {
		t.Errorf("the journal keeps %v", got)
	}
	kerneltest.Eventually(t, "the pod has no eth0", func() bool {
		_, err := s.ns.LinkByName("eth0")
		return err != nil
	})
}

func TestWithoutAnAgentADDIsToBeRepeatedAndDELSucceedsAndIsDoneLater(t *testing.T) {
	a, c, s := newAgent(t), cni(t), newSandbox(t, "c1", "web")
	add(t, c, a.conf("1.0.0"), s)
	a.stop()
	var e *types.Error
	if _, err := c.AddNetworkList(t.Context(), a.conf("1.0.0"), newSandbox(t, "c2", "x").rt); !errors.As(err, &e) || e.Code != types.ErrTryAgainLater {
		t.Errorf("ADD: got %v, want code %d", err, types.ErrTryAgainLater)
	}
	if err := c.DelNetworkList(t.Context(), a.conf("1.0.0"), s.rt); err != nil {
		t.Errorf("DEL: %v", err)
	}
	a.start()
	if got := a.books.State().Attachments; len(got) != 0 {
		t.Errorf("after the agent's start the journal keeps %v", got)
	}
	if left, _ := filepath.Glob(filepath.Join(a.run, wire.TombstoneDir, "*")); len(left) != 0 {
		t.Errorf("tombstones are left: %v", left)
	}
}

func TestADDWaitsForAnAgentThatStarts(t *testing.T) {
	a, c, s := newAgent(t), cni(t), newSandbox(t, "c1", "web")
	a.stop()
	conf, done := a.conf("1.0.0"), make(chan error, 1)
	go func() {
		_, err := c.AddNetworkList(t.Context(), conf, s.rt)
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("ADD: %v, and no agent runs", err)
	case <-time.After(100 * time.Millisecond): // it waits
	}
	a.start()
	if err := <-done; err != nil {
		t.Errorf("ADD: %v", err)
	}
}

func TestARestartedAgentKnowsItsPodsAndForgetsThoseThatARebootTook(t *testing.T) {
	a, c := newAgent(t), cni(t)
	stays, goes := newSandbox(t, "c1", "stays"), newSandbox(t, "c2", "goes")
	want := add(t, c, a.conf("1.0.0"), stays).IPs[0].Address.IP.String()
	gone := add(t, c, a.conf("1.0.0"), goes)
	a.stop()
	a.node.Remove(gone.Interfaces[0].Name)
	a.start()
	if got := a.kernel.addrs(); len(got) != 1 || got[0] != want || !a.kernel.synced {
		t.Errorf("the agent knows %v (synced: %v), want %s", got, a.kernel.synced, want)
	}
}

func TestItem16GCRemovesWhatTheRuntimeDoesNotName(t *testing.T) {
	a, c := newAgent(t), cni(t)
	kept, lost := newSandbox(t, "c1", "kept"), newSandbox(t, "c2", "lost")
	want := add(t, c, a.conf("1.1.0"), kept).IPs[0].Address.IP.String()
	add(t, c, a.conf("1.1.0"), lost)
	err := c.GCNetworkList(t.Context(), a.conf("1.1.0"), &libcni.GCArgs{ValidAttachments: []types.GCAttachment{{ContainerID: "c1", IfName: "eth0"}}})
	if err != nil {
		t.Fatal(err)
	}
	if got := a.kernel.addrs(); len(got) != 1 || got[0] != want {
		t.Errorf("endpoints hold %v, want %s", got, want)
	}
}

func TestItem16GCOfOneNetworkLeavesAnotherAlone(t *testing.T) {
	a, c := newAgent(t), cni(t)
	first, second := a.conf("1.1.0"), a.network("storage", "1.1.0")
	add(t, c, first, newSandbox(t, "c1", "web"))
	add(t, c, second, newSandbox(t, "c2", "db"))
	if err := c.GCNetworkList(t.Context(), first, &libcni.GCArgs{}); err != nil || len(a.held()) != 1 {
		t.Fatalf("GC of one network: %v, and %v are held", err, a.held())
	}
	if err := c.GCNetworkList(t.Context(), second, &libcni.GCArgs{}); err != nil || len(a.held()) != 0 {
		t.Errorf("GC of the other: %v, and %v are held", err, a.held())
	}
}

func TestItem16STATUSFollowsTheAgent(t *testing.T) {
	a, c := newAgent(t), cni(t)
	if err := c.GetStatusNetworkList(t.Context(), a.conf("1.1.0")); err != nil {
		t.Error(err)
	}
	a.kernel.refuse = errors.New("route: not in sync yet")
	if err := c.GetStatusNetworkList(t.Context(), a.conf("1.1.0")); err == nil {
		t.Error("STATUS is well although the agent is not ready")
	}
	a.stop()
	if err := c.GetStatusNetworkList(t.Context(), a.conf("1.1.0")); err == nil {
		t.Error("STATUS is well although no agent runs")
	}
}

// The plugin as a runtime that errs meets it: the CNI specification's codes.
func TestBadInputGetsTheSpecificationsErrorCodes(t *testing.T) {
	a := newAgent(t)
	good := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"korat","type":"korat-cni","socket":%q}`, filepath.Join(a.run, "cni.sock"))
	for what, x := range map[string]struct {
		stdin string
		env   map[string]string
		code  uint
	}{
		"broken stdin":     {`{"cniVersion":`, nil, types.ErrDecodingFailure},
		"empty stdin":      {``, nil, types.ErrDecodingFailure},
		"unknown version":  {strings.Replace(good, "1.0.0", "9.9.9", 1), nil, types.ErrIncompatibleCNIVersion},
		"missing netns":    {good, map[string]string{"CNI_NETNS": "/nonexistent"}, types.ErrInvalidEnvironmentVariables},
		"empty netns":      {good, map[string]string{"CNI_NETNS": ""}, types.ErrInvalidEnvironmentVariables},
		"bad container ID": {good, map[string]string{"CNI_CONTAINERID": "../x"}, types.ErrInvalidEnvironmentVariables},
		"relative socket":  {`{"cniVersion":"1.0.0","name":"korat","type":"korat-cni","socket":"x"}`, nil, types.ErrInvalidNetworkConfig},
		"unknown command":  {good, map[string]string{"CNI_COMMAND": "FLY"}, types.ErrInvalidEnvironmentVariables},
		"no path":          {good, map[string]string{"CNI_PATH": ""}, types.ErrInvalidEnvironmentVariables},
		"no container ID":  {good, map[string]string{"CNI_CONTAINERID": ""}, types.ErrInvalidEnvironmentVariables},
		"bad interface":    {good, map[string]string{"CNI_IFNAME": "a/b"}, types.ErrInvalidEnvironmentVariables},
		"no network name":  {strings.Replace(good, `"name":"korat",`, "", 1), nil, types.ErrInvalidNetworkConfig},
		"CHECK too early":  {strings.Replace(good, "1.0.0", "0.3.1", 1), map[string]string{"CNI_COMMAND": "CHECK"}, types.ErrIncompatibleCNIVersion},
		"CHECK of nothing": {good, map[string]string{"CNI_COMMAND": "CHECK"}, types.ErrInvalidNetworkConfig},
		"GC too early":     {good, map[string]string{"CNI_COMMAND": "GC"}, types.ErrIncompatibleCNIVersion},
		"STATUS too early": {good, map[string]string{"CNI_COMMAND": "STATUS"}, types.ErrIncompatibleCNIVersion},
		"foreign IPAM":     {strings.Replace(good, `"socket"`, `"ipam":{"type":"nothing"},"socket"`, 1), nil, types.ErrInvalidNetworkConfig},
		"path as IPAM":     {strings.Replace(good, `"socket"`, `"ipam":{"type":"../x"},"socket"`, 1), nil, types.ErrInvalidNetworkConfig},
	} {
		t.Run(what, func(t *testing.T) {
			env := map[string]string{
				"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_PATH": plugin,
				"CNI_NETNS": kerneltest.New(t).Path(), "CNI_ARGS": "K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p",
			}
			for k, v := range x.env {
				env[k] = v
			}
			cmd := exec.Command(filepath.Join(plugin, "korat-cni"))
			for k, v := range env {
				cmd.Env = append(cmd.Env, k+"="+v)
			}
			cmd.Stdin = strings.NewReader(x.stdin)
			var out bytes.Buffer
			cmd.Stdout = &out
			err := cmd.Run()
			var e types.Error
			if json.Unmarshal(out.Bytes(), &e) != nil || err == nil || e.Code != x.code {
				t.Errorf("exit %v with %s, want code %d", err, out.String(), x.code)
			}
		})
	}
}

func TestThePluginTellsItsVersionsWithoutAnAgent(t *testing.T) {
	info, err := invoke.GetVersionInfo(t.Context(), filepath.Join(plugin, "korat-cni"), nil)
	if err != nil || !slices.Equal(info.SupportedVersions(), wire.Versions) {
		t.Errorf("VERSION: %v, %v", info, err)
	}
	if out, err := exec.CommandContext(t.Context(), filepath.Join(plugin, "korat-cni")).CombinedOutput(); err != nil || !strings.Contains(string(out), "Korat CNI plugin") {
		t.Errorf("without a command: %s, %v", out, err)
	}
}

// A plugin of another version takes the agent for one that is not there.
func TestAnAgentHangsUpOnWhatIsNoCall(t *testing.T) {
	a := newAgent(t)
	conn, err := net.Dial("unix", filepath.Join(a.run, "cni.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(`{"command":"ADD","network":"korat"}` + "\n")); err != nil {
		t.Fatal(err)
	}
	if out, err := io.ReadAll(conn); len(out) > 0 {
		t.Errorf("answer %q, %v", out, err)
	}
}
