package kubelet

import (
	"context"
	"crypto/sha1"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/yaml"
)

// watchPods passes on the pods that the API server binds to this node.
func (r *Runner) watchPods(ctx context.Context) error {
	factory := informers.NewSharedInformerFactoryWithOptions(r.client, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", r.Node).String()
	}))
	informer := factory.Core().V1().Pods().Informer()
	put := func(obj any) {
		pod := obj.(*corev1.Pod)
		switch {
		case pod.Annotations[corev1.MirrorPodAnnotationKey] == "":
			r.send(ctx, update{uid: pod.UID, pod: pod.DeepCopy()})
		case pod.DeletionTimestamp != nil:
			r.outbox.put(report{pod: pod, gone: true}) // the manifest rules; its mirror comes again
		}
	}
	reg, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: put,
		UpdateFunc: func(old, obj any) {
			// What happened while the API server was away comes as one change: a pod
			// that was deleted and made anew under its name is another pod.
			if was := old.(*corev1.Pod).UID; was != obj.(*corev1.Pod).UID {
				r.send(ctx, update{uid: was})
			}
			put(obj)
		},
		DeleteFunc: func(obj any) {
			if last, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = last.Obj
			}
			r.send(ctx, update{uid: obj.(*corev1.Pod).UID})
		},
	})
	if err != nil {
		return err
	}
	factory.Start(ctx.Done())
	if cache.WaitForCacheSync(ctx.Done(), reg.HasSynced) {
		r.send(ctx, update{synced: true})
	}
	<-ctx.Done()
	factory.Shutdown()
	return ctx.Err()
}

// manifestsEvery is how often the directory of manifests is read.
const manifestsEvery = 500 * time.Millisecond

// watchManifests passes on the pods whose manifests are in a directory, which
// needs no API server.
func (r *Runner) watchManifests(ctx context.Context) error {
	tick := time.NewTicker(manifestsEvery)
	defer tick.Stop()
	known := map[types.UID]bool{}
	for {
		found := map[types.UID]bool{}
		for _, pod := range r.readManifests() {
			found[pod.UID] = true
			if !known[pod.UID] {
				r.send(ctx, update{uid: pod.UID, pod: pod})
			}
		}
		for uid := range known {
			if !found[uid] {
				r.send(ctx, update{uid: uid})
			}
		}
		known = found
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func (r *Runner) readManifests() []*corev1.Pod {
	files, _ := filepath.Glob(filepath.Join(ManifestsDir, "*.yaml"))
	var out []*corev1.Pod
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // removed meanwhile
		}
		pod, err := manifest(b, r.Node)
		if err != nil {
			r.Log.Warn("manifest is ignored", "file", f, "error", err)
			continue
		}
		out = append(out, pod)
	}
	return out
}

// manifest makes the pod of a file: its name ends with the node's, its UID
// stands for its text, so that a changed file is another pod.
func manifest(text []byte, node string) (*corev1.Pod, error) {
	var pod corev1.Pod
	if err := yaml.UnmarshalStrict(text, &pod); err != nil {
		return nil, err
	}
	if pod.Name == "" || len(pod.Spec.Containers) == 0 {
		return nil, fmt.Errorf("want a Pod with a name and containers")
	}
	pod.APIVersion, pod.Kind = "v1", "Pod"
	pod.Name += "-" + strings.ToLower(node)
	if pod.Namespace == "" {
		pod.Namespace = corev1.NamespaceDefault
	}
	pod.UID = types.UID(fmt.Sprintf("%x", sha1.Sum(append([]byte(node+"\n"), text...))))
	pod.Spec.NodeName = node
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations[sourceAnnotation] = "file"
	return &pod, nil
}

// sourceAnnotation marks a pod that comes from a manifest, as kubelets do.
const sourceAnnotation = "kubernetes.io/config.source"

func isManifest(pod *corev1.Pod) bool { return pod.Annotations[sourceAnnotation] == "file" }
