package verdict_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/pulse"
	"github.com/hdctl/handoff/upgrade/internal/verdict"
)

// kind are requests that are alike.
type kind struct {
	n      int
	took   time.Duration
	failed int // of them
}

// sample counts requests.
func sample(t *testing.T, kinds ...kind) pulse.Sample {
	t.Helper()
	page, err := pulse.New()
	require.NoError(t, err)
	defer page.Close()
	for _, k := range kinds {
		for i := range k.n {
			page.Observe(k.took, i < k.failed)
		}
	}
	return page.Sample()
}

// totals are what a service reports that counts itself.
func totals(t *testing.T, requests, errors uint64, latency time.Duration) pulse.Sample {
	t.Helper()
	page, err := pulse.New()
	require.NoError(t, err)
	defer page.Close()
	page.Report(requests, errors, latency)
	return page.Sample()
}

func TestCompare(t *testing.T) {
	const ms = time.Millisecond
	usual := sample(t, kind{5880, 10 * ms, 0})
	for name, c := range map[string]struct {
		old, new pulse.Sample
		period   time.Duration
		policy   verdict.Policy
		verdict  string
		reason   string
	}{
		"equal": {
			old: usual, new: sample(t, kind{312, 10 * ms, 0}),
			verdict: control.VerdictGood, reason: "0.0% of 312 requests failed, of the old one 0.0% of 5,880; median 9.4ms, of the old one 9.4ms",
		},
		"nothing at all": {verdict: control.VerdictInconclusive, reason: "0 requests are too few, 50 are needed"},
		"one too few": {
			old: usual, new: sample(t, kind{49, 10 * ms, 12}),
			verdict: control.VerdictInconclusive, reason: "49 requests are too few, 50 are needed; 12 of them failed",
		},
		"as many as are needed": {
			old: usual, new: sample(t, kind{50, 10 * ms, 12}),
			verdict: control.VerdictBad, reason: "24.0% of 50 requests failed, of the old one 0.0% of 5,880",
		},
		"more are needed": {
			old: usual, new: sample(t, kind{50, 10 * ms, 12}), policy: verdict.Policy{MinRequests: 1000},
			verdict: control.VerdictInconclusive, reason: "50 requests are too few, 1,000 are needed; 12 of them failed",
		},
		"failing": {
			old: usual, new: sample(t, kind{312, 10 * ms, 16}),
			verdict: control.VerdictBad, reason: "5.1% of 312 requests failed, of the old one 0.0% of 5,880",
		},
		"failing, as both do": {
			old: sample(t, kind{5880, 10 * ms, 300}), new: sample(t, kind{312, 10 * ms, 16}),
			verdict: control.VerdictGood, reason: "5.1% of 312 requests failed, of the old one 5.1% of 5,880; median 9.4ms, of the old one 9.4ms",
		},
		"failing, less than the old one": {
			old: sample(t, kind{5880, 10 * ms, 3000}), new: sample(t, kind{312, 10 * ms, 16}),
			verdict: control.VerdictGood, reason: "5.1% of 312 requests failed, of the old one 51.0% of 5,880; median 9.4ms, of the old one 9.4ms",
		},
		"failing, certainly, but not by more than is allowed": {
			old: usual, new: sample(t, kind{5000, 10 * ms, 49}),
			verdict: control.VerdictGood, reason: "1.0% of 5,000 requests failed, of the old one 0.0% of 5,880; median 9.4ms, of the old one 9.4ms",
		},
		"failing, and more is allowed": {
			old: usual, new: sample(t, kind{312, 10 * ms, 16}), policy: verdict.Policy{MaxErrors: 0.1},
			verdict: control.VerdictGood, reason: "5.1% of 312 requests failed, of the old one 0.0% of 5,880; median 9.4ms, of the old one 9.4ms",
		},
		"two that failed are no proof": {
			old: sample(t, kind{100_000, 10 * ms, 0}), new: sample(t, kind{60, 10 * ms, 2}),
			verdict: control.VerdictInconclusive, reason: "3.3% of 60 requests failed, of the old one 0.0% of 100,000: too few to tell whether that is an accident",
		},
		"one that failed is nothing": {
			old: sample(t, kind{5880, 10 * ms, 1}), new: sample(t, kind{60, 10 * ms, 1}),
			verdict: control.VerdictGood, reason: "1.7% of 60 requests failed, of the old one 0.02% of 5,880; median 9.4ms, of the old one 9.4ms",
		},
		"slow": {
			old: usual, new: sample(t, kind{312, 31 * ms, 0}),
			verdict: control.VerdictBad, reason: "median 31ms, of the old one 9.4ms",
		},
		"slow, and it has just begun": {
			old: usual, new: sample(t, kind{312, 31 * ms, 0}), period: 2 * time.Second,
			verdict: control.VerdictInconclusive, reason: "median 31ms, of the old one 9.4ms: too early to tell, 2s after it began",
		},
		"slow, and it need not warm up": {
			old: usual, new: sample(t, kind{312, 31 * ms, 0}), period: 2 * time.Second, policy: verdict.Policy{WarmUp: time.Second},
			verdict: control.VerdictBad, reason: "median 31ms, of the old one 9.4ms",
		},
		"slow, and it may be": {
			old: usual, new: sample(t, kind{312, 31 * ms, 0}), policy: verdict.Policy{MaxSlowdown: 4},
			verdict: control.VerdictGood, reason: "0.0% of 312 requests failed, of the old one 0.0% of 5,880; median 31ms, of the old one 9.4ms",
		},
		"slow by less than anybody notices": {
			old: sample(t, kind{5880, ms / 20, 0}), new: sample(t, kind{312, ms / 2, 0}),
			verdict: control.VerdictGood, reason: "0.0% of 312 requests failed, of the old one 0.0% of 5,880; median 490µs, of the old one 53µs",
		},
		"slow, perhaps": {
			old: sample(t, kind{40, 10 * ms, 0}, kind{30, 100 * ms, 0}), new: sample(t, kind{20, 10 * ms, 0}, kind{50, 100 * ms, 0}),
			verdict: control.VerdictInconclusive, reason: "median 89ms, of the old one 10ms: 70 requests are too few to tell whether that is an accident",
		},
		"slow at the border between two kinds": {
			old: sample(t, kind{5100, ms, 0}, kind{4900, 100 * ms, 0}), new: sample(t, kind{4700, ms, 0}, kind{5300, 100 * ms, 0}),
			verdict: control.VerdictGood, reason: "0.0% of 10,000 requests failed, of the old one 0.0% of 10,000; median 85ms, of the old one 1ms",
		},
		"failing and slow": {
			old: usual, new: sample(t, kind{312, 31 * ms, 16}),
			verdict: control.VerdictBad, reason: "5.1% of 312 requests failed, of the old one 0.0% of 5,880",
		},
		"slow, and perhaps failing": {
			old: usual, new: sample(t, kind{312, 31 * ms, 2}, kind{0, 0, 0}), policy: verdict.Policy{MaxErrors: 0.001},
			verdict: control.VerdictBad, reason: "median 31ms, of the old one 9.4ms",
		},
		"a long tail": {
			old: usual, new: sample(t, kind{800, 10 * ms, 0}, kind{200, 900 * ms, 0}),
			verdict: control.VerdictInconclusive, reason: "the slowest 5% of the requests took more than 910ms, of the old one 10ms; median 9.7ms, of the old one 9.4ms",
		},
		"a tail that is a little fatter": {
			old: usual, new: sample(t, kind{930, 10 * ms, 0}, kind{70, 900 * ms, 0}),
			verdict: control.VerdictGood, reason: "0.0% of 1,000 requests failed, of the old one 0.0% of 5,880; median 9.5ms, of the old one 9.4ms",
		},
		"nothing to compare with": {
			old: sample(t, kind{3, 10 * ms, 0}), new: sample(t, kind{312, 10 * ms, 16}),
			verdict: control.VerdictInconclusive, reason: "5.1% of 312 requests failed; 3 of the old one are too few to compare with",
		},
		"nothing to compare with, and it is broken": {
			new:     sample(t, kind{312, 10 * ms, 300}),
			verdict: control.VerdictBad, reason: "96.2% of 312 requests failed; 0 of the old one are too few to compare with",
		},
		"totals": {
			old: totals(t, 5880, 0, 5880*10*ms), new: totals(t, 312, 0, 312*11*ms),
			verdict: control.VerdictGood, reason: "0.0% of 312 requests failed, of the old one 0.0% of 5,880; mean 11ms, of the old one 10ms",
		},
		"totals without times": {
			old: totals(t, 5880, 0, 0), new: totals(t, 312, 0, 0),
			verdict: control.VerdictGood, reason: "0.0% of 312 requests failed, of the old one 0.0% of 5,880",
		},
		"totals that fail": {
			old: totals(t, 5880, 0, 0), new: totals(t, 312, 16, 0),
			verdict: control.VerdictBad, reason: "5.1% of 312 requests failed, of the old one 0.0% of 5,880",
		},
		"totals of the new one, which are slower": {
			old: usual, new: totals(t, 312, 0, 312*31*ms),
			verdict: control.VerdictInconclusive, reason: "mean 31ms, of the old one 10ms: a few that took very long would look the same",
		},
		"a million": {
			old: pulse.Sample{Requests: 900_000_000, Errors: 9_000_000}, new: pulse.Sample{Requests: 100_000_000, Errors: 3_000_000},
			verdict: control.VerdictBad, reason: "3.0% of 100,000,000 requests failed, of the old one 1.0% of 900,000,000",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if c.period == 0 {
				c.period = 20 * time.Second
			}
			v := verdict.Compare(c.old, c.new, c.period, c.policy)
			assert.Equal(t, c.verdict, v.Verdict, v.Reason)
			assert.Equal(t, c.reason, v.Reason)
			assert.Equal(t, verdict.Health(c.old, c.period), v.Old)
			assert.Equal(t, verdict.Health(c.new, c.period), v.New)
		})
	}
}

func TestHealth(t *testing.T) {
	h := verdict.Health(sample(t, kind{90, 10 * time.Millisecond, 0}, kind{10, time.Second, 4}), 20*time.Second)
	assert.Equal(t, 20.0, h.Period)
	assert.EqualValues(t, 100, h.Requests)
	assert.EqualValues(t, 4, h.Errors)
	assert.Equal(t, 5.0, h.PerSecond)
	assert.InEpsilon(t, 0.010, h.Median, 0.25)
	assert.InEpsilon(t, 1, h.P95, 0.25)
	assert.InEpsilon(t, 0.109, h.Mean, 1e-6)

	assert.Equal(t, control.Health{Period: 10, Requests: 50, Errors: 1, PerSecond: 5, Mean: 0.02},
		verdict.Health(totals(t, 50, 1, time.Second), 10*time.Second), "totals have a mean, and nothing else")
	assert.Equal(t, control.Health{}, verdict.Health(pulse.Sample{}, 0))
}

// anySample is what may be in a page, whoever has written it.
func anySample(t *rapid.T, name string) pulse.Sample {
	count := rapid.OneOf(rapid.Uint64Range(0, 1000), rapid.Uint64Range(0, 1<<62))
	s := pulse.Sample{
		Requests: count.Draw(t, name+" requests"),
		Latency:  time.Duration(rapid.Int64Min(0).Draw(t, name+" latency")),
	}
	s.Errors = rapid.Uint64Range(0, s.Requests).Draw(t, name+" errors") // package pulse sees to that
	for range rapid.IntRange(0, 4).Draw(t, name+" buckets") {
		s.Buckets[rapid.IntRange(0, pulse.NBuckets-1).Draw(t, name+" bucket")] = rapid.Uint64Range(0, 1<<40).Draw(t, name+" in it")
	}
	return s
}

func TestCompareTakesAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := verdict.Compare(anySample(t, "old"), anySample(t, "new"), time.Duration(rapid.Int64().Draw(t, "period")), verdict.Policy{
			MinRequests: rapid.Int().Draw(t, "least"), MaxErrors: rapid.Float64().Draw(t, "errors"), MaxSlowdown: rapid.Float64().Draw(t, "slowdown"),
		})
		assert.Contains(t, []string{control.VerdictGood, control.VerdictBad, control.VerdictInconclusive}, v.Verdict)
		assert.NotEmpty(t, v.Reason)
		_, err := json.Marshal(v)
		assert.NoError(t, err, "it has numbers that JSON has not")
	})
}

// TestMoreErrorsAreNeverBetter: nor are fewer errors of the old one.
func TestMoreErrorsAreNeverBetter(t *testing.T) {
	rank := map[string]int{control.VerdictGood: 0, control.VerdictInconclusive: 1, control.VerdictBad: 2}
	rapid.Check(t, func(t *rapid.T) {
		was := pulse.Sample{Requests: rapid.Uint64Range(50, 10_000).Draw(t, "old")}
		is := pulse.Sample{Requests: rapid.Uint64Range(50, 10_000).Draw(t, "new")}
		was.Errors = rapid.Uint64Range(0, was.Requests).Draw(t, "old failed")
		is.Errors = rapid.Uint64Range(0, is.Requests).Draw(t, "new failed")
		before := verdict.Compare(was, is, time.Minute, verdict.Policy{})
		if rapid.Bool().Draw(t, "which") {
			is.Errors = rapid.Uint64Range(is.Errors, is.Requests).Draw(t, "then")
		} else {
			was.Errors = rapid.Uint64Range(0, was.Errors).Draw(t, "then")
		}
		after := verdict.Compare(was, is, time.Minute, verdict.Policy{})
		assert.GreaterOrEqual(t, rank[after.Verdict], rank[before.Verdict], "%s; then %s", before.Reason, after.Reason)
	})
}
