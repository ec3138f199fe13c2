package controller

import (
	"context"
	"fmt"
	"math"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	koratv1 "github.com/koratnet/korat/api/v1"
)

func (c cluster) reservation(ctx context.Context, r *koratv1.IPReservation) (change, error) {
	var pools koratv1.IPPoolList
	if err := c.List(ctx, &pools, shared); err != nil {
		return change{}, fmt.Errorf("pools: %w", err)
	}
	want := reservationStatus(r, pools.Items)
	return change{r.Status, want, r.Status.Conditions, want.Conditions}, nil
}

// reservationStatus says what r takes from the pools.
func reservationStatus(r *koratv1.IPReservation, pools []koratv1.IPPool) koratv1.IPReservationStatus {
	var n int64
	for i := range pools {
		cidr, _ := poolRange(&pools[i])
		if n += reservedIn(cidr, []koratv1.IPReservation{*r}); n < 0 {
			n = math.MaxInt64
		}
	}
	s := koratv1.IPReservationStatus{Addresses: strconv.FormatInt(n, 10)}
	if n == math.MaxInt64 {
		s.Addresses = "2^63 or more"
	}
	problem := finding{}
	if n == 0 {
		problem = finding{koratv1.ReasonNoPool, "spec.cidrs: expected ranges that touch an IPPool, and none does"}
	}
	s.Conditions = accepted(append([]metav1.Condition(nil), r.Status.Conditions...), problem, r.Generation)
	return s
}

func (c cluster) everyReservation(ctx context.Context, _ client.Object) []client.ObjectKey {
	return c.keys(ctx, &koratv1.IPReservationList{})
}
