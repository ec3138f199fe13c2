package main

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	readyPoll    = 25 * time.Millisecond
	readyTimeout = 2 * time.Minute // one start takes 5 s; on a machine of two busy cores several do at once
)

func adminClient(c config) (*kubernetes.Clientset, error) {
	rest, err := clientcmd.BuildConfigFromFlags("", c.kubeconfig("admin"))
	if err != nil {
		return nil, fmt.Errorf("admin client: %w", err)
	}
	rest.QPS = -1 // polls faster than client-go likes
	client, err := kubernetes.NewForConfig(rest)
	if err != nil {
		return nil, fmt.Errorf("admin client: %w", err)
	}
	return client, nil
}

// waitServing waits until the API server says that it is ready.
func waitServing(ctx context.Context, client *kubernetes.Clientset) error {
	return poll(ctx, "kube-apiserver", func(ctx context.Context) error {
		return client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
}

// waitUsable waits until Pods can be made in namespace default: admission wants
// its ServiceAccount, a kubelet the ConfigMap with the authority's certificate.
func waitUsable(ctx context.Context, client *kubernetes.Clientset) error {
	core := client.CoreV1()
	err := poll(ctx, "ServiceAccount default/default", func(ctx context.Context) error {
		_, err := core.ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	if err != nil {
		return err
	}
	return poll(ctx, "ConfigMap default/kube-root-ca.crt", func(ctx context.Context) error {
		_, err := core.ConfigMaps("default").Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
		return err
	})
}

// poll calls get until it returns no error, and names what in the error of a time-out.
func poll(ctx context.Context, what string, get func(context.Context) error) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, readyPoll, readyTimeout, true, func(ctx context.Context) (bool, error) {
		last = get(ctx)
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("wait for %s: %w (last: %w)", what, err, last)
	}
	return nil
}
