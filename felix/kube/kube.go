// Package kube makes the clients that the agent speaks to the API server with.
// It registers just the API groups that Korat reads and writes: the full
// clientset of client-go would cost every node some twenty megabytes.
package kube

import (
	"fmt"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	policyv1alpha1 "sigs.k8s.io/network-policy-api/apis/v1alpha1"
	policyv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	koratv1 "github.com/koratnet/korat/api/v1"
)

// Clients are REST clients, one per API group and version. All are safe for
// concurrent use and share one connection.
type Clients struct {
	Core           rest.Interface // v1
	Networking     rest.Interface // networking.k8s.io/v1
	Discovery      rest.Interface // discovery.k8s.io/v1
	Coordination   rest.Interface // coordination.k8s.io/v1
	PolicyV1alpha1 rest.Interface // policy.networking.k8s.io/v1alpha1, where the cluster serves it
	PolicyV1alpha2 rest.Interface // policy.networking.k8s.io/v1alpha2, where the cluster serves it
	Korat          rest.Interface // korat.dev/v1

	Metadata metadata.Interface // of objects of any kind
}

// Config reads the kubeconfig at path; an empty path means the credentials that
// Kubernetes gives to pods. Client-side rate limits are off: the API server's
// own priority and fairness decides, and Korat's writes are coalesced.
func Config(path, userAgent string) (*rest.Config, error) {
	var cfg *rest.Config
	var err error
	if path == "" {
		cfg, err = rest.InClusterConfig()
	} else {
		cfg, err = clientcmd.BuildConfigFromFlags("", path)
	}
	if err != nil {
		return nil, fmt.Errorf("credentials for the API server (--kubeconfig %q): %w", path, err)
	}
	cfg.QPS = -1
	cfg.UserAgent = userAgent
	return cfg, nil
}

// Scheme returns a scheme with the types that Korat uses.
func Scheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, networkingv1.AddToScheme, discoveryv1.AddToScheme, coordinationv1.AddToScheme,
		policyv1alpha1.Install, policyv1alpha2.Install, koratv1.AddToScheme,
	} {
		if err := add(s); err != nil {
			return nil, fmt.Errorf("bug: scheme: %w", err)
		}
	}
	metav1.AddToGroupVersion(s, schema.GroupVersion{Version: "v1"})
	return s, nil
}

// New makes the clients.
func New(cfg *rest.Config) (*Clients, error) {
	scheme, err := Scheme()
	if err != nil {
		return nil, err
	}
	codecs := serializer.NewCodecFactory(scheme)
	http, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("client for the API server %s: %w", cfg.Host, err)
	}
	client := func(gv schema.GroupVersion, apiPath, contentType string) rest.Interface {
		c := rest.CopyConfig(cfg)
		c.GroupVersion = &gv
		c.APIPath = apiPath
		c.NegotiatedSerializer = codecs.WithoutConversion()
		c.ContentType = contentType
		if contentType != runtime.ContentTypeJSON {
			c.AcceptContentTypes = contentType + "," + runtime.ContentTypeJSON
		}
		r, e := rest.RESTClientForConfigAndClient(c, http)
		if e != nil && err == nil {
			err = fmt.Errorf("client for %s at %s: %w", gv, cfg.Host, e)
		}
		return r
	}
	clients := &Clients{
		Core:           client(corev1.SchemeGroupVersion, "/api", runtime.ContentTypeProtobuf),
		Networking:     client(networkingv1.SchemeGroupVersion, "/apis", runtime.ContentTypeProtobuf),
		Discovery:      client(discoveryv1.SchemeGroupVersion, "/apis", runtime.ContentTypeProtobuf),
		Coordination:   client(coordinationv1.SchemeGroupVersion, "/apis", runtime.ContentTypeProtobuf),
		PolicyV1alpha1: client(schema.GroupVersion(policyv1alpha1.GroupVersion), "/apis", runtime.ContentTypeJSON),
		PolicyV1alpha2: client(schema.GroupVersion(policyv1alpha2.GroupVersion), "/apis", runtime.ContentTypeJSON),
		Korat:          client(koratv1.GroupVersion, "/apis", runtime.ContentTypeJSON), // CRDs are JSON only
	}
	if err != nil {
		return nil, err
	}
	if clients.Metadata, err = metadata.NewForConfigAndClient(cfg, http); err != nil {
		return nil, fmt.Errorf("client for metadata at %s: %w", cfg.Host, err)
	}
	return clients, nil
}
