package kube

import (
	"context"

	corev1 "k8s.io/api/core/v1"
)

// PodAnnotations asks the API server for the annotations of one pod. It is for
// what cannot wait for a watch; the error is the API server's.
func (c *Clients) PodAnnotations(ctx context.Context, namespace, pod string) (map[string]string, error) {
	var p corev1.Pod
	if err := c.Core.Get().Namespace(namespace).Resource("pods").Name(pod).Do(ctx).Into(&p); err != nil {
		return nil, err
	}
	return p.Annotations, nil
}

// Namespace asks the API server for the labels and annotations of one namespace, as
// PodAnnotations does for those of a pod.
func (c *Clients) Namespace(ctx context.Context, name string) (labels, annotations map[string]string, err error) {
	var n corev1.Namespace
	if err := c.Core.Get().Resource("namespaces").Name(name).Do(ctx).Into(&n); err != nil {
		return nil, nil, err
	}
	return n.Labels, n.Annotations, nil
}
