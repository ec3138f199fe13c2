package remains

import (
	"context"

	"github.com/koratnet/korat/felix/kernel/rule"
)

func findRules(context.Context) ([]string, error) { return rule.Present() }

func removeRules(ctx context.Context) error {
	r, err := rule.New()
	if err != nil {
		return err
	}
	defer r.Close()
	return wantNothing(ctx, r)
}
