package controller

import (
	"context"
	"fmt"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	koratv1 "github.com/koratnet/korat/api/v1"
)

func TestStatusOfNodeConfigurations(t *testing.T) {
	run(t)
	configuration := func(name, selector string) *koratv1.NodeConfiguration {
		return &koratv1.NodeConfiguration{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: koratv1.NodeConfigurationSpec{NodeSelector: selector}}
	}
	chosen, bad := configuration("chosen", "kept == 'yes'"), configuration("bad", "kept = 'yes'")
	create(t, chosen, bad)
	says(t, chosen, &chosen.Status.Conditions, koratv1.ConditionAccepted, "True Accepted")
	says(t, bad, &bad.Status.Conditions, koratv1.ConditionAccepted, "False InvalidSelector: spec.nodeSelector")
	n := machine("labelled")
	n.Labels = map[string]string{"kept": "yes"}
	create(t, n)
	within(t, func(ctx context.Context) error {
		if err := admin.Get(ctx, client.ObjectKeyFromObject(chosen), chosen); err != nil {
			return err
		}
		if chosen.Status.Nodes != 1 {
			return fmt.Errorf("%d nodes are chosen, want 1", chosen.Status.Nodes)
		}
		return nil
	})
}
