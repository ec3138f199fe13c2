// Package live reads the objects of a cluster from its API server, as they stand
// there: in JSON, like those of manifests.
package live

import (
	"context"
	"encoding/json"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/koratnet/korat/cmd/koratctl/internal/manifest"
	"github.com/koratnet/korat/cmd/koratctl/internal/world"
)

// page is how many objects are asked for at once.
const page = "500"

// Config reads the kubeconfig at path. Without one it is found as kubectl finds
// it: $KUBECONFIG, ~/.kube/config, or the credentials that are given to pods.
func Config(path, kubeContext, userAgent string) (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = path
	cfg, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: kubeContext}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("no credentials for an API server: %w; name a kubeconfig with --kubeconfig, or manifests with -f to need none", err)
	}
	cfg.QPS = -1
	cfg.UserAgent = userAgent
	return cfg, nil
}

// Client returns a client that takes and gives JSON of any kind.
func Client(cfg *rest.Config) (rest.Interface, error) {
	cfg = rest.CopyConfig(cfg)
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"}) // what errors are written in
	cfg.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	cfg.ContentType, cfg.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	client, err := rest.UnversionedRESTClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("client for the API server %s: %w", cfg.Host, err)
	}
	return client, nil
}

// Read reads all objects of the kinds that are understood. Kinds that the
// cluster does not serve have no objects.
func Read(ctx context.Context, cfg *rest.Config) ([]manifest.Object, error) {
	client, err := Client(cfg)
	if err != nil {
		return nil, err
	}
	var all []manifest.Object
	for _, k := range world.Kinds {
		if k.Resource == "" {
			continue
		}
		objects, err := list(ctx, client, k)
		if apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) {
			err = fmt.Errorf("%w: an answer needs the right to list them", err)
		}
		if err != nil {
			return nil, fmt.Errorf("list %s of %s at %s: %w", k.Resource, k.APIVersion, cfg.Host, err)
		}
		all = append(all, objects...)
	}
	return all, nil
}

// list reads all objects of one kind, page by page.
func list(ctx context.Context, client rest.Interface, k world.Kind) ([]manifest.Object, error) {
	path := "/apis/" + k.APIVersion + "/" + k.Resource
	if k.APIVersion == "v1" {
		path = "/api/v1/" + k.Resource
	}
	var all []manifest.Object
	for next := ""; ; {
		answer := client.Get().AbsPath(path).Param("limit", page).Param("continue", next).Do(ctx)
		if err := answer.Error(); apierrors.IsNotFound(err) {
			return nil, nil
		} else if err != nil {
			return nil, err
		}
		raw, err := answer.Raw()
		if err != nil {
			return nil, err
		}
		objects, err := manifest.Decode(manifest.Place{}, raw)
		if err != nil {
			return nil, err
		}
		all = append(all, objects...)
		var meta struct {
			Metadata struct {
				Continue string `json:"continue"`
			} `json:"metadata"`
		}
		if err := json.Unmarshal(raw, &meta); err != nil {
			return nil, err
		}
		if next = meta.Metadata.Continue; next == "" {
			return all, nil
		}
	}
}
