package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hdctl/handoff/units"
)

// show asks the service manager, and waits for each answer for no longer than limit.
// One that has not answered within it is not asked again: it may well hang, and an
// operator who wants to know why shall not wait for it once for each question.
func (a *app) show(limit time.Duration) units.Show {
	ask := units.Systemctl(a.globals.User)
	var mu sync.Mutex
	var silent error
	return func(ctx context.Context, unit string, properties ...string) (map[string]string, error) {
		mu.Lock()
		defer mu.Unlock()
		if silent != nil {
			return nil, silent
		}
		ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %v", limit))
		defer cancel()
		values, err := ask(ctx, unit, properties...)
		if err != nil && ctx.Err() != nil {
			silent = err
		}
		return values, err
	}
}
