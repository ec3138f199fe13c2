// Package controller tests what needs a real API server and no nodes: the
// controller, its rights, and the manifests that tests and documentation show.
package controller

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/koratnet/korat/felix/kernel/kerneltest"
	"github.com/koratnet/korat/felix/kube"
)

const (
	root    = "../.."
	binary  = root + "/bin/controlplane" // made by `make lab-build`
	patient = 2 * time.Minute            // a start takes some seconds; machines may be busy
)

// admin is a client of the control plane that all tests share; dir is where it
// keeps its keys.
var (
	admin client.Client
	dir   string
)

func TestMain(m *testing.M) {
	os.Exit(withCluster(m.Run))
}

// withCluster runs the tests with a control plane that has Korat's kinds and
// rights, and takes it down.
func withCluster(run func() int) int {
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	stop, err := start(ctx)
	if stop != nil {
		defer stop()
	}
	if err == nil {
		err = install(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "control plane:", err)
		return 1
	}
	return run()
}

// start starts the control plane on loopback, in a directory of its own.
func start(ctx context.Context) (stop func(), err error) {
	if dir, err = os.MkdirTemp("", "korat-e2e-"); err != nil {
		return nil, err
	}
	remove := func() { os.RemoveAll(dir) }
	port, err := kerneltest.FreePort()
	if err != nil {
		return remove, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return remove, err
	}
	defer log.Close()
	cmd := exec.Command(binary, "serve", "--dir", dir, "--port", strconv.Itoa(int(port)))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} // a test that panics leaves nothing behind
	if err := cmd.Start(); err != nil {
		return remove, fmt.Errorf("%w: make lab-build makes it", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // may have ended
		<-ended
		remove()
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "ready")); err == nil {
			return stop, nil
		}
		select {
		case err := <-ended:
			text, _ := os.ReadFile(log.Name())
			ended <- err
			return stop, fmt.Errorf("ended with %w:\n%s", err, text)
		case <-ctx.Done():
			text, _ := os.ReadFile(log.Name())
			return stop, fmt.Errorf("not ready: %w:\n%s", context.Cause(ctx), text)
		case <-time.After(50 * time.Millisecond): // poll for the file
		}
	}
}

// install applies the CRDs and the rights, and waits until the kinds are served.
func install(ctx context.Context) error {
	cfg, err := kube.Config(filepath.Join(dir, "admin.kubeconfig"), "korat-e2e")
	if err != nil {
		return err
	}
	scheme, err := kube.Scheme()
	if err != nil {
		return err
	}
	if err := authorizationv1.AddToScheme(scheme); err != nil {
		return err
	}
	if admin, err = client.New(cfg, client.Options{Scheme: scheme}); err != nil {
		return err
	}
	files, err := filepath.Glob(root + "/charts/korat/crds/*.yaml")
	if err != nil {
		return err
	}
	for _, file := range append(files, root+"/charts/korat/rbac.yaml") {
		objects, err := manifests(file)
		if err != nil {
			return err
		}
		for _, o := range objects {
			if err := admin.Create(ctx, o); err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
		}
	}
	for _, kind := range []string{"IPPool", "Block", "NodeNetwork", "BGPConfiguration", "BGPPeer"} {
		list := &unstructured.UnstructuredList{}
		list.SetAPIVersion("korat.dev/v1")
		list.SetKind(kind + "List")
		if err := eventually(ctx, func() error { return admin.List(ctx, list) }); err != nil {
			return err
		}
	}
	return nil
}

// identity returns the credentials of a user that the control plane's authority signs.
func identity(t *testing.T, user string, groups ...string) *rest.Config {
	t.Helper()
	out := filepath.Join(t.TempDir(), "kubeconfig")
	text, err := exec.Command(binary, "kubeconfig", "--dir", dir, "--user", user, "--groups", strings.Join(groups, ","), "--out", out).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	cfg, err := kube.Config(out, "korat-e2e")
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// manifests reads the documents of a YAML file.
func manifests(file string) ([]*unstructured.Unstructured, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	d := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	var objects []*unstructured.Unstructured
	for {
		o := &unstructured.Unstructured{}
		if err := d.Decode(&o.Object); errors.Is(err, io.EOF) {
			return objects, nil
		} else if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if len(o.Object) > 0 {
			objects = append(objects, o)
		}
	}
}

// eventually asks until there is no error, or ctx ends; then the last one counts.
func eventually(ctx context.Context, ask func() error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

// within fails the test unless ask succeeds soon.
func within(t *testing.T, ask func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := eventually(ctx, func() error { return ask(ctx) }); err != nil {
		t.Fatal(err)
	}
}
