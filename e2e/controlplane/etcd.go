package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/server/v3/embed"
)

// maxSocketPath is what the kernel takes for the path of a unix socket.
const maxSocketPath = 107

// etcd is an embedded etcd of one member. Nothing listens on the network.
type etcd struct {
	server *embed.Etcd
	url    string
}

// startEtcd keeps its state in dir/etcd and returns when it serves.
func startEtcd(ctx context.Context, dir string) (*etcd, error) {
	c := embed.NewConfig()
	c.Name = "lab"
	c.Dir = filepath.Join(dir, "etcd")
	c.LogLevel = "warn"
	c.WarningUnaryRequestDuration = embed.DefaultWarningUnaryRequestDuration // zero here: warns of every request
	c.LogOutputs = []string{filepath.Join(dir, "etcd.log")}
	// The page cache outlives this process, and a lab does not outlive the machine.
	c.UnsafeNoFsync = true

	clients, err := socketURL(filepath.Join(dir, "etcd.sock"))
	if err != nil {
		return nil, err
	}
	peers, err := socketURL(filepath.Join(dir, "etcd-peer.sock"))
	if err != nil {
		return nil, err
	}
	c.ListenClientUrls = []url.URL{clients}
	c.ListenPeerUrls = []url.URL{peers}
	// etcd refuses to advertise a socket. With one member nobody dials these.
	advertised := url.URL{Scheme: "http", Host: "127.0.0.1:2380"}
	c.AdvertiseClientUrls = []url.URL{advertised}
	c.AdvertisePeerUrls = []url.URL{advertised}
	c.InitialCluster = c.Name + "=" + advertised.String()

	server, err := embed.StartEtcd(c)
	if err != nil {
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	select {
	case <-server.Server.ReadyNotify():
		return &etcd{server: server, url: clients.String()}, nil
	case err := <-server.Err():
		return nil, fmt.Errorf("start etcd: %w", err)
	case <-ctx.Done():
		server.Server.HardStop()
		return nil, fmt.Errorf("start etcd: %w", ctx.Err())
	}
}

// socketURL removes what an earlier run left at path.
func socketURL(path string) (url.URL, error) {
	if len(path) > maxSocketPath {
		return url.URL{}, fmt.Errorf("socket %s: path of %d bytes, at most %d: use a shorter --dir", path, len(path), maxSocketPath)
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return url.URL{}, fmt.Errorf("socket of an earlier run: %w", err)
	}
	return url.URL{Scheme: "unix", Path: path}, nil
}

// wait returns nil when ctx ends, or what stopped etcd before.
func (e *etcd) wait(ctx context.Context) error {
	select {
	case err := <-e.server.Err():
		return fmt.Errorf("etcd: %w", err)
	case <-ctx.Done():
		return nil
	}
}

// stop writes what is pending. It does not wait for clients to go, as
// embed.Etcd.Close does for seconds.
func (e *etcd) stop() {
	e.server.Server.HardStop()
}
