package main

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/koratnet/korat/e2e/controlplane/pki"
)

// config is what serve was told. All it writes is below dir.
type config struct {
	dir         string
	bind        netip.Addr
	advertise   netip.Addr
	port        uint
	names       string // more names of the API server, comma-separated
	serviceCIDR string // one prefix, or two of different families
	nodes       bool   // kubelets join
	verbosity   int
}

func parseConfig(args []string) (config, error) {
	var c config
	fs := flag.NewFlagSet("serve", flag.ContinueOnError)
	fs.StringVar(&c.dir, "dir", "", "directory of all state, made when absent (required)")
	fs.TextVar(&c.bind, "bind", netip.MustParseAddr("127.0.0.1"), "address to listen on")
	fs.TextVar(&c.advertise, "advertise", netip.Addr{}, "address that clients use (default: that of --bind)")
	fs.UintVar(&c.port, "port", 6443, "port of the API server")
	fs.StringVar(&c.names, "names", "", "more names and addresses for its certificate, comma-separated")
	fs.StringVar(&c.serviceCIDR, "service-cidr", "10.96.0.0/16", "addresses of Services; two of different families are comma-separated")
	fs.BoolVar(&c.nodes, "nodes", false, "kubelets join: watch their heartbeats, run all controllers but those that give out addresses")
	fs.IntVar(&c.verbosity, "v", 0, "log level of Kubernetes' components")
	if err := fs.Parse(args); err != nil {
		return c, err
	}
	if c.dir == "" || fs.NArg() > 0 {
		return c, errors.New("want --dir DIR and no other arguments than flags")
	}
	if !c.advertise.IsValid() {
		c.advertise = c.bind
	}
	if c.advertise.IsUnspecified() {
		return c, fmt.Errorf("nobody can connect to %s: want --advertise ADDRESS", c.advertise)
	}
	// Absolute, for the children and for the URL of etcd's socket.
	dir, err := filepath.Abs(c.dir)
	if err != nil {
		return c, err
	}
	c.dir = dir
	return c, nil
}

// url is where clients reach the API server.
func (c config) url() string {
	return "https://" + netip.AddrPortFrom(c.advertise, uint16(c.port)).String()
}

// kubeletClient is what the API server calls kubelets as: the name of the files.
const kubeletClient = "apiserver-kubelet"

// file is the path of a key or certificate.
func (c config) file(name string) string { return filepath.Join(c.dir, "pki", name) }

// kubeconfig is the path of the kubeconfig of a component or of the admin.
func (c config) kubeconfig(name string) string { return filepath.Join(c.dir, name+".kubeconfig") }

// serverNames are all names by which the API server is called.
func (c config) serverNames() ([]string, error) {
	names := []string{
		"localhost", "127.0.0.1", c.bind.String(), c.advertise.String(),
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
	}
	for text := range strings.SplitSeq(c.serviceCIDR, ",") {
		services, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("--service-cidr: %w", err)
		}
		names = append(names, services.Masked().Addr().Next().String()) // Service kubernetes
	}
	return append(names, splitList(c.names)...), nil
}

// writeIdentities makes all keys, certificates and kubeconfigs of the control plane.
func (c config) writeIdentities() error {
	if err := os.MkdirAll(c.file(""), 0o755); err != nil {
		return err
	}
	authority, err := pki.LoadOrCreate(c.file(""))
	if err != nil {
		return err
	}
	names, err := c.serverNames()
	if err != nil {
		return err
	}
	serving, err := authority.Server(names...)
	if err != nil {
		return err
	}
	if err := serving.Write(c.file("apiserver.crt"), c.file("apiserver.key")); err != nil {
		return err
	}
	kubelets, err := authority.Client("kube-apiserver", "system:masters")
	if err != nil {
		return err
	}
	if err := kubelets.Write(c.file(kubeletClient+".crt"), c.file(kubeletClient+".key")); err != nil {
		return err
	}
	if err := pki.WriteTokenKeys(c.file("sa.key"), c.file("sa.pub")); err != nil {
		return err
	}
	for _, client := range []struct {
		file, user string
		groups     []string
	}{
		{"admin", "kubernetes-admin", []string{"system:masters"}},
		{"kube-controller-manager", "system:kube-controller-manager", nil},
		{"kube-scheduler", "system:kube-scheduler", nil},
	} {
		text, err := authority.ClientKubeconfig(c.url(), client.user, client.groups...)
		if err != nil {
			return err
		}
		if err := os.WriteFile(c.kubeconfig(client.file), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// kubeconfigCommand signs a client certificate with the authority of a lab.
func kubeconfigCommand(args []string) error {
	fs := flag.NewFlagSet("kubeconfig", flag.ContinueOnError)
	dir := fs.String("dir", "", "--dir of the lab (required)")
	user := fs.String("user", "", "user name, the common name of the certificate (required)")
	groups := fs.String("groups", "", "groups of the user, comma-separated")
	server := fs.String("server", "", "URL of the API server (default: that of the lab's admin)")
	out := fs.String("out", "", "file to write (default: standard output)")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if *dir == "" || *user == "" || fs.NArg() > 0 {
		return errors.New("want --dir DIR, --user NAME and no other arguments than flags")
	}
	c := config{dir: *dir}
	authority, err := pki.Load(c.file(""))
	if err != nil {
		return err
	}
	if *server == "" {
		if *server, err = pki.ServerOf(c.kubeconfig("admin")); err != nil {
			return err
		}
	}
	text, err := authority.ClientKubeconfig(*server, *user, splitList(*groups)...)
	if err != nil {
		return err
	}
	if *out == "" {
		_, err = os.Stdout.Write(text)
		return err
	}
	return os.WriteFile(*out, text, 0o600)
}

// splitList splits at commas; nothing is no element, not an empty one.
func splitList(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}
