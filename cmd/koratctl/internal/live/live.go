// Package live reads the objects of a cluster from its API server, as they stand
// there: in JSON, like those of manifests.
package live

import (
	"context"
	"encoding/json"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
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

// Read reads all objects of the kinds that are understood. Kinds that the
// cluster does not serve have no objects.
func Read(ctx context.Context, cfg *rest.Config) ([]manifest.Object, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.NegotiatedSerializer = serializer.NewCodecFactory(runtime.NewScheme()).WithoutConversion()
	cfg.ContentType, cfg.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	client, err := rest.UnversionedRESTClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("client for the API server %s: %w", cfg.Host, err)
	}
	var all []manifest.Object
	for _, k := range world.Kinds {
		if k.Resource == "" {
			continue
		}
		objects, err := list(ctx, client, k)
		if err != nil {
			return nil, fmt.Errorf("list %s of %s at %s: %w; koratctl needs the right to list them", k.Resource, k.APIVersion, cfg.Host, err)
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
		raw, err := client.Get().AbsPath(path).Param("limit", page).Param("continue", next).DoRaw(ctx)
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
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
