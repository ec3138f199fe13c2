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

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

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
	if _, err := helm(t, "lint", "--strict", "korat"); err != nil {
		t.Fatal(err)
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

func TestEverythingCanBeSwitchedOn(t *testing.T) {
	out, err := helm(t, "template", "k", "korat", "--namespace", "korat-system",
		"--set", "metrics.serviceMonitor.enabled=true,metrics.dashboards.enabled=true,agent.httpAddress=$(NODE_IP)",
		"--set", "agent.speakerContainer=false,image.digest=sha256:"+strings.Repeat("a", 64))
	if err != nil {
		t.Fatal(err)
	}
	have := objects(t, out)
	for _, name := range []string{
		"ServiceMonitor/korat-system/korat-agent", "ServiceMonitor/korat-system/korat-controller",
		"ConfigMap/korat-system/korat-dashboards", "DaemonSet/korat-system/korat-agent",
		"Role/korat-system/korat-controller", "RoleBinding/kube-node-lease/korat-agent",
	} {
		if have[name] == nil {
			t.Errorf("%s is missing among %v", name, slices.Sorted(maps.Keys(have)))
		}
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
	have := objects(t, string(charts.Manifest))
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
	var paths []string
	for _, v := range agent.Spec.Template.Spec.Volumes {
		paths = append(paths, v.HostPath.Path)
	}
	slices.Sort(paths)
	if want := []string{"/etc/cni/net.d", "/opt/cni/bin", "/run/korat", "/run/netns", "/run/xtables.lock", "/var/lib/korat"}; !slices.Equal(paths, want) {
		t.Errorf("the agent's pod sees %v of the node, want %v", paths, want)
	}
	if v := controller.Spec.Template.Spec.Volumes; len(v) > 0 {
		t.Errorf("the controller's pod has volumes %v, want none", v)
	}
	capabilities := map[string][]corev1.Capability{
		"install-cni": nil, "agent": {"NET_ADMIN", "NET_RAW", "SYS_ADMIN"}, "speaker": {"NET_BIND_SERVICE"}, "controller": nil,
	}
	pods := []corev1.PodSpec{agent.Spec.Template.Spec, controller.Spec.Template.Spec}
	for _, pod := range pods {
		if pod.HostPID || pod.HostIPC {
			t.Error("a pod shares processes with the node")
		}
		for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
			s := c.SecurityContext
			want, known := capabilities[c.Name]
			if !known {
				t.Errorf("container %s is not in the list", c.Name)
				continue
			}
			delete(capabilities, c.Name)
			if s.Privileged != nil && *s.Privileged || !*s.ReadOnlyRootFilesystem || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || !slices.Equal(s.Capabilities.Add, want) {
				t.Errorf("container %s has %+v, want a read-only root and nothing but %v", c.Name, s, want)
			}
			seccomp := pod.SecurityContext
			if (s.SeccompProfile == nil || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault) &&
				(seccomp == nil || seccomp.SeccompProfile == nil || seccomp.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault) {
				t.Errorf("container %s has no seccomp profile", c.Name)
			}
		}
	}
	if len(capabilities) > 0 {
		t.Errorf("containers %v are missing", slices.Sorted(maps.Keys(capabilities)))
	}
}
