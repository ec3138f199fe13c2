package pki

import (
	"fmt"
	"os"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// Kubeconfig is a kubeconfig file that needs no other file: it reaches the API
// server at the URL server as the client of pair.
func (a *Authority) Kubeconfig(server, user string, pair Pair) ([]byte, error) {
	const cluster = "korat-lab"
	config := api.NewConfig()
	config.Clusters[cluster] = &api.Cluster{Server: server, CertificateAuthorityData: a.Cert()}
	config.AuthInfos[user] = &api.AuthInfo{ClientCertificateData: pair.Cert, ClientKeyData: pair.Key}
	config.Contexts[cluster] = &api.Context{Cluster: cluster, AuthInfo: user}
	config.CurrentContext = cluster
	text, err := clientcmd.Write(*config)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig of %s: %w", user, err)
	}
	return text, nil
}

// ClientKubeconfig signs a client certificate for user in groups and returns a
// kubeconfig file with it.
func (a *Authority) ClientKubeconfig(server, user string, groups ...string) ([]byte, error) {
	pair, err := a.Client(user, groups...)
	if err != nil {
		return nil, err
	}
	return a.Kubeconfig(server, user, pair)
}

// ServerOf is the URL of the API server that a kubeconfig file speaks to.
func ServerOf(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("kubeconfig: %w", err)
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(text)
	if err != nil {
		return "", fmt.Errorf("kubeconfig %s: %w", file, err)
	}
	return config.Host, nil
}
