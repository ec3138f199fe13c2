package report

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	koratv1 "github.com/koratnet/korat/api/v1"
)

// ReasonTunnelOffload is that of Events about what tunnels leave to devices.
const ReasonTunnelOffload = "TunnelOffload"

// tellOffload writes an Event for each tunnel that leaves more or less to devices than
// before.
func (t *teller) tellOffload(ctx context.Context, was []koratv1.TunnelStatus, n *koratv1.NodeNetwork, now time.Time) error {
	var errs []error
	for _, message := range offloadEvents(was, n.Status.Tunnels) {
		errs = append(errs, t.write(ctx, n, corev1.EventTypeNormal, ReasonTunnelOffload, message, now))
	}
	return errors.Join(errs...)
}

// offloadEvents says what changed. A tunnel that is new is no change.
func offloadEvents(was, is []koratv1.TunnelStatus) (messages []string) {
	before := map[string]koratv1.Switch{}
	for _, t := range was {
		before[t.Interface] = t.Offload
	}
	for _, t := range is {
		if b := before[t.Interface]; b != "" && t.Offload != "" && b != t.Offload {
			messages = append(messages, fmt.Sprintf("the offload of %s is %s: %s", t.Interface, t.Offload, t.OffloadReason))
		}
	}
	return messages
}
