package kubelet

import (
	"strings"
	"testing"
)

func TestAManifestBecomesAPodOfTheNode(t *testing.T) {
	const text = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers: [{name: main, ports: [{containerPort: 80}, {containerPort: 53, protocol: UDP}, {containerPort: 9, protocol: SCTP}]}]\n"
	pod, err := manifest([]byte(text), "a1")
	if err != nil {
		t.Fatal(err)
	}
	if pod.Name != "web-a1" || pod.Namespace != "default" || pod.Spec.NodeName != "a1" || !isManifest(pod) {
		t.Errorf("pod is %+v", pod.ObjectMeta)
	}
	if got := strings.Join(ports(&pod.Spec.Containers[0]), " "); got != "tcp/80 udp/53" {
		t.Errorf("ports are %s", got)
	}
	other, err := manifest([]byte(strings.Replace(text, "80", "81", 1)), "a1")
	if err != nil {
		t.Fatal(err)
	}
	same, err := manifest([]byte(text), "a1")
	if err != nil {
		t.Fatal(err)
	}
	if other.UID == pod.UID || same.UID != pod.UID {
		t.Errorf("UIDs are %s, changed %s, same %s", pod.UID, other.UID, same.UID)
	}
	for _, bad := range []string{"kind: Pod\n", "metadata: {name: x}\nspec: {colour: red}\n", "]"} {
		if _, err := manifest([]byte(bad), "a1"); err == nil {
			t.Errorf("manifest %q is taken", bad)
		}
	}
}

func TestBackoffGrowsToTenSeconds(t *testing.T) {
	if got := backoff(1).String() + " " + backoff(2).String() + " " + backoff(100).String(); got != "100ms 200ms 10s" {
		t.Error(got)
	}
}
