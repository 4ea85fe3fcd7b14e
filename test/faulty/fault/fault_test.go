package fault_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/faulty/fault"
	"github.com/hdctl/handoff/test/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// statuses asks so many times, and counts the answers by status.
func statuses(t *testing.T, p fault.Plan, requests int) map[int]int {
	t.Helper()
	in, err := fault.New(p)
	require.NoError(t, err)
	h := in.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "well") }))
	got := make(map[int]int)
	for range requests {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		got[w.Code]++
	}
	return got
}

func TestErrors(t *testing.T) {
	const fast = time.Microsecond
	for _, tt := range []struct {
		plan fault.Plan
		bad  int // of 200
	}{
		{fault.Plan{Latency: fast}, 0},
		{fault.Plan{Latency: fast, Errors: 5}, 10},
		{fault.Plan{Latency: fast, Errors: 0.5}, 1},
		{fault.Plan{Latency: fast, Errors: 33}, 66},
		{fault.Plan{Latency: fast, Errors: 100}, 200},
		{fault.Plan{Latency: fast, Errors: 100, IllAfter: time.Hour}, 0},
		{fault.Plan{Latency: fast, Errors: 100, IllAfter: time.Nanosecond}, 200},
	} {
		t.Run(tt.plan.String(), func(t *testing.T) {
			got := statuses(t, tt.plan, 200)
			assert.InDelta(t, tt.bad, got[http.StatusInternalServerError], 1, "%v", got) // the first may be before it is ill
			assert.Equal(t, 200, got[http.StatusOK]+got[http.StatusInternalServerError])
		})
	}
}

func TestSlow(t *testing.T) {
	for _, tt := range []struct {
		plan    fault.Plan
		atLeast time.Duration // of ten requests
	}{
		{fault.Plan{}, 20 * time.Millisecond},
		{fault.Plan{Latency: time.Millisecond, Slow: 3}, 30 * time.Millisecond},
	} {
		began := time.Now()
		statuses(t, tt.plan, 10)
		assert.GreaterOrEqual(t, time.Since(began), tt.atLeast, "%v", tt.plan)
	}
	statuses(t, fault.Plan{Slow: 1e9, IllAfter: time.Hour}, 1) // or the test hangs
}

func TestNames(t *testing.T) {
	for p, want := range map[fault.Plan]string{
		{}:                                       "good",
		{Fault: fault.Kill, At: fault.Probation}: "kill at probation after 300ms",
		{Fault: fault.Stop, At: fault.Serving, After: time.Second}:   "stop at serving after 1s",
		{Fault: fault.Panic, At: fault.Request, Request: 100}:        "panic at request 100",
		{Fault: fault.Kill, At: fault.Confirmed, Memory: 2048}:       "kill at confirmed with 2048 MiB",
		{Errors: 5, Slow: 3, IllAfter: time.Minute, Version: "v2.0"}: "5 % errors 3 times as slow after 1m0s",
	} {
		assert.Equal(t, want, p.String())
	}
}
