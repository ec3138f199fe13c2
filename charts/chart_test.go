package charts_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/koratnet/korat/charts"
)

// program is the Helm that hack/helm pins.
var program string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "korat-chart-")
	if err != nil {
		panic(err)
	}
	program = filepath.Join(dir, "helm")
	build := exec.Command("go", "build", "-ldflags", "-s -w", "-o", program, "helm.sh/helm/v4/cmd/helm")
	build.Dir, build.Stderr = "../hack/helm", os.Stderr
	if err := build.Run(); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

func helm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(program, args...)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("helm %s: %w\n%s%s", strings.Join(args, " "), err, out, complaint.Bytes())
	}
	return string(out), err
}

func objects(t *testing.T, text string) map[string]*unstructured.Unstructured {
	t.Helper()
	all := map[string]*unstructured.Unstructured{}
	for d := yaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096); ; {
		u := &unstructured.Unstructured{}
		err := d.Decode(&u.Object)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(u.Object) > 0 {
			all[strings.Trim(u.GetKind()+"/"+u.GetNamespace()+"/"+u.GetName(), "/")] = u
		}
	}
}

func TestHelmAcceptsTheChart(t *testing.T) {
	for _, values := range []string{"korat/values.yaml", "testdata/everything.values.yaml"} {
		if _, err := helm(t, "lint", "--strict", "korat", "--values", values); err != nil {
			t.Error(err)
		}
	}
}

// TestValuesAreChecked: a value that cannot work is refused before anything is
// installed, by its name.
func TestValuesAreChecked(t *testing.T) {
	for value, name := range map[string]string{
		"agent.logLevel=loud":                  "logLevel",
		"agent.httpPort=70000":                 "httpPort",
		"agent.cni.binDir=opt/cni/bin":         "binDir",
		"controller.replicas=0":                "replicas",
		"defaultPools={10.0.0.0}":              "defaultPools",
		"image.digest=latest":                  "digest",
		"agent.unknown=1":                      "unknown",
		"metrics.serviceMonitor.interval=soon": "interval",
		"uninstall.cutPods=maybe":              "cutPods",
	} {
		if _, err := helm(t, "template", "k", "korat", "--set", value); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("--set %s: error %v, want one that names %s", value, err, name)
		}
	}
}

// TestEveryValueHasADefaultAndARule: one that only the schema knows is hidden from
// who reads values.yaml, and one that it does not know is refused.
func TestEveryValueHasADefaultAndARule(t *testing.T) {
	var values, schema map[string]any
	for name, into := range map[string]*map[string]any{"values.yaml": &values, "values.schema.json": &schema} {
		text, err := os.ReadFile("korat/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal(text, into); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	compare(t, "", values, schema)
}

// compare compares an object of the values with the schema's.
func compare(t *testing.T, path string, values, schema map[string]any) {
	t.Helper()
	properties, closed := schema["properties"].(map[string]any)
	if !closed {
		return // a map of the user's
	}
	delete(properties, "global") // Helm's own
	have, want := slices.Sorted(maps.Keys(values)), slices.Sorted(maps.Keys(properties))
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("schema and values of %q differ:\n%s", path, diff)
	}
	for name, p := range properties {
		if v, ok := values[name].(map[string]any); ok {
			compare(t, path+"."+name, v, p.(map[string]any))
		}
	}
}

// TestASingleControllerHasNoBudget, which would hold up the drain of its node.
func TestASingleControllerHasNoBudget(t *testing.T) {
	const name = "PodDisruptionBudget/kube-system/korat-controller"
	if objects(t, string(charts.Manifest))[name] == nil {
		t.Error("two controllers have no budget")
	}
	out, err := helm(t, "template", "k", "korat", "--namespace", "kube-system", "--set", "controller.replicas=1")
	if err != nil {
		t.Fatal(err)
	}
	if objects(t, out)[name] != nil {
		t.Error("a single controller has a budget")
	}
}

// TestUninstallTakesThePlaceOfTheAgents: both on one node would undo what the other does.
func TestUninstallTakesThePlaceOfTheAgents(t *testing.T) {
	out, err := helm(t, "template", "k", "korat", "--namespace", "kube-system", "--set", "uninstall.enabled=true,uninstall.cutPods=true")
	if err != nil {
		t.Fatal(err)
	}
	have := objects(t, out)
	if have["DaemonSet/kube-system/korat-agent"] != nil {
		t.Error("the agents are still there")
	}
	if have["Deployment/kube-system/korat-controller"] == nil {
		t.Error("the controllers are gone, without which no IPPool can be deleted")
	}
	var u appsv1.DaemonSet
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(have["DaemonSet/kube-system/korat-uninstall"].Object, &u); err != nil {
		t.Fatal(err)
	}
	c := u.Spec.Template.Spec.Containers[0]
	if want := []corev1.Capability{"NET_ADMIN", "NET_RAW"}; !slices.Equal(c.SecurityContext.Capabilities.Add, want) {
		t.Errorf("it may do %v, want %v", c.SecurityContext.Capabilities.Add, want)
	}
	if !slices.Contains(c.Args, "--cut-pods") || slices.Contains(c.Args, "--keep-state") {
		t.Errorf("arguments %v do not follow the values", c.Args)
	}
}

// TestAddressesOfEitherFamilyCanBeListenedOn: $(NODE_IP) is known on the node alone.
func TestAddressesOfEitherFamilyCanBeListenedOn(t *testing.T) {
	out, err := helm(t, "template", "k", "korat", "--set", "agent.httpAddress=$(NODE_IP),controller.httpAddress=$(NODE_IP)")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`--http-address=(\S+)`).FindAllStringSubmatch(out, -1)
	if len(found) != 2 {
		t.Fatalf("addresses %v, want one of agents and one of controllers", found)
	}
	for _, f := range found {
		for _, address := range []string{"127.0.0.1", "::1"} {
			host, _, err := net.SplitHostPort(strings.Replace(f[1], "$(NODE_IP)", address, 1))
			if err != nil || host != address {
				t.Errorf("%s on %s listens on %q, %v", f[1], address, host, err)
			}
		}
	}
}

// TestPrivileges lists all that the pods may do to a node. What is added here is a
// decision, not an accident.
func TestPrivileges(t *testing.T) {
	paths := []string{"/etc/cni/net.d", "/opt/cni/bin", "/run/korat", "/run/netns", "/run/xtables.lock", "/var/lib/korat"}
	agent := []corev1.Capability{"NET_ADMIN", "NET_RAW", "SYS_ADMIN"}
	other := []corev1.Capability{"SETUID", "SETGID", "CHOWN"}
	speaker := []corev1.Capability{"NET_BIND_SERVICE"}
	for _, c := range []struct {
		values string
		paths  []string
		caps   map[string][]corev1.Capability
	}{
		{"", nil, map[string][]corev1.Capability{"agent": agent, "speaker": speaker}},
		{"agent.userspaceWireGuard=true", []string{"/dev/net/tun"}, map[string][]corev1.Capability{
			"agent": slices.Concat(agent, other), "speaker": speaker,
		}},
		{"agent.speakerContainer=false", nil, map[string][]corev1.Capability{
			"agent": slices.Concat(agent, other, speaker, []corev1.Capability{"SETPCAP"}),
		}},
	} {
		t.Run(c.values, func(t *testing.T) {
			out, err := helm(t, "template", "k", "korat", "--namespace", "kube-system", "--set", c.values)
			if err != nil {
				t.Fatal(err)
			}
			c.caps["install-cni"], c.caps["controller"] = nil, nil
			privileges(t, out, slices.Sorted(slices.Values(slices.Concat(paths, c.paths))), c.caps)
		})
	}
}

// privileges checks that the pods see these paths of a node and no others, and their
// containers have these capabilities and no others.
func privileges(t *testing.T, manifest string, paths []string, capabilities map[string][]corev1.Capability) {
	t.Helper()
	have := objects(t, manifest)
	var agent appsv1.DaemonSet
	var controller appsv1.Deployment
	for name, into := range map[string]any{"DaemonSet/kube-system/korat-agent": &agent, "Deployment/kube-system/korat-controller": &controller} {
		if have[name] == nil {
			t.Fatalf("%s is missing among %v", name, slices.Sorted(maps.Keys(have)))
		}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(have[name].Object, into); err != nil {
			t.Fatal(err)
		}
	}
	var seen []string
	for _, v := range agent.Spec.Template.Spec.Volumes {
		seen = append(seen, v.HostPath.Path)
	}
	slices.Sort(seen)
	if !slices.Equal(seen, paths) {
		t.Errorf("the agent's pod sees %v of the node, want %v", seen, paths)
	}
	if v := controller.Spec.Template.Spec.Volumes; len(v) > 0 {
		t.Errorf("the controller's pod has volumes %v, want none", v)
	}
	for _, pod := range []corev1.PodSpec{agent.Spec.Template.Spec, controller.Spec.Template.Spec} {
		if pod.HostPID || pod.HostIPC {
			t.Error("a pod shares processes with the node")
		}
		for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
			want, known := capabilities[c.Name]
			if !known {
				t.Errorf("container %s is not in the list", c.Name)
				continue
			}
			delete(capabilities, c.Name)
			confined(t, pod, c, want)
		}
	}
	if len(capabilities) > 0 {
		t.Errorf("containers %v are missing", slices.Sorted(maps.Keys(capabilities)))
	}
}

// confined checks what a container may do beyond what files it sees.
func confined(t *testing.T, pod corev1.PodSpec, c corev1.Container, want []corev1.Capability) {
	t.Helper()
	s := c.SecurityContext
	if s.Privileged != nil && *s.Privileged || !*s.ReadOnlyRootFilesystem || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || !slices.Equal(s.Capabilities.Add, want) {
		t.Errorf("container %s has %+v, want a read-only root and nothing but %v", c.Name, s, want)
	}
	seccomp := s.SeccompProfile
	if seccomp == nil && pod.SecurityContext != nil {
		seccomp = pod.SecurityContext.SeccompProfile
	}
	if seccomp == nil || seccomp.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("container %s has no seccomp profile", c.Name)
	}
}
