package verdict_test

import (
	"fmt"
	"iter"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/pulse"
	"github.com/hdctl/handoff/upgrade/internal/verdict"
)

// draws takes latencies from draw, each as the bucket that it is in: so millions of
// requests cost nothing.
func draws(t *testing.T, draw func(*rand.Rand) time.Duration) []uint8 {
	t.Helper()
	page, err := pulse.New()
	require.NoError(t, err)
	defer page.Close()
	r := rand.New(rand.NewPCG(1, 2))
	all := make([]uint8, 1<<14)
	before := page.Sample()
	for i := range all {
		page.Observe(draw(r), false)
		after := page.Sample()
		for b, n := range after.Minus(before).Buckets {
			if n > 0 {
				all[i] = uint8(b)
			}
		}
		before = after
	}
	return all
}

// lognormal latencies have a median, and a width: two thirds of them are between
// median/e^sigma and median*e^sigma.
func lognormal(median time.Duration, sigma float64) func(*rand.Rand) time.Duration {
	return func(r *rand.Rand) time.Duration {
		return time.Duration(float64(median) * math.Exp(sigma*r.NormFloat64()))
	}
}

// mixture draws from one of two kinds of requests.
func mixture(first float64, a, b func(*rand.Rand) time.Duration) func(*rand.Rand) time.Duration {
	return func(r *rand.Rand) time.Duration {
		if r.Float64() < first {
			return a(r)
		}
		return b(r)
	}
}

// generation answers requests.
type generation struct {
	latency []uint8
	failing float64 // fraction of the requests
}

func (g generation) answer(r *rand.Rand, s *pulse.Sample, requests int) {
	s.Requests += uint64(requests)
	for range requests {
		x := r.Uint64()
		s.Buckets[g.latency[x%uint64(len(g.latency))]]++
		if float64(x>>11)/(1<<53) < g.failing {
			s.Errors++
		}
	}
}

// step is one share of an upgrade.
type step struct {
	old, new generation
	requests int     // of the new one, in all
	share    float64 // of the traffic
}

const looks = 30 // one a second

// run compares every second, and returns whether it was ever called bad, and what
// the last look said.
func (s step) run(r *rand.Rand) (bad bool, last control.Verdict) {
	var was, is pulse.Sample
	done, doneOld := 0, 0
	others := min(int(float64(s.requests)*(1-s.share)/s.share), 20_000) // more tell nothing more
	for i := 1; i <= looks; i++ {
		n, m := s.requests*i/looks, others*i/looks
		s.new.answer(r, &is, n-done)
		s.old.answer(r, &was, m-doneOld)
		done, doneOld = n, m
		last = verdict.Compare(was, is, time.Duration(i)*time.Second, verdict.Policy{})
		if last.Verdict == control.VerdictBad {
			return true, last
		}
	}
	return false, last
}

// runs is how many steps of each kind are simulated: n, or more with SIMULATE=10.
func runs(n int) int {
	if factor, err := strconv.Atoi(os.Getenv("SIMULATE")); err == nil {
		return n * factor
	}
	return n
}

// shapes of latencies as services have them.
func shapes() map[string]func(*rand.Rand) time.Duration {
	ms := time.Millisecond
	return map[string]func(*rand.Rand) time.Duration{
		"narrow":                             lognormal(10*ms, 0.3),
		"usual":                              lognormal(10*ms, 1),
		"wide":                               lognormal(10*ms, 2),
		"fast":                               lognormal(ms/20, 1),
		"around the floor":                   lognormal(ms, 1),
		"a cache that half of them hit":      mixture(0.5, lognormal(ms/10, 0.5), lognormal(20*ms, 0.5)),
		"one in twenty is a report":          mixture(0.95, lognormal(5*ms, 0.5), lognormal(500*ms, 0.5)),
		"one in a hundred waits for a timer": mixture(0.99, lognormal(5*ms, 0.5), lognormal(30*time.Second, 0.01)),
	}
}

func TestAnEqualGenerationIsNotCalledBad(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	n := runs(50)
	steps, bads, inconclusives := 0, 0, 0
	for name, g := range equals(t) {
		badBefore, inconclusiveBefore := bads, inconclusives
		for _, requests := range []int{100, 300, 1000, 5000} {
			for _, share := range []float64{0.05, 0.25, 0.5} {
				for range n {
					bad, last := step{old: g, new: g, requests: requests, share: share}.run(r)
					steps++
					if bad {
						bads++
						t.Logf("%s, share %v: %s", name, share, last.Reason)
					}
					if last.Verdict == control.VerdictInconclusive {
						inconclusives++
					}
				}
			}
		}
		t.Logf("%s: of %d steps %d were called bad, and %d ended inconclusive", name, 12*n, bads-badBefore, inconclusives-inconclusiveBefore)
	}
	assert.Less(t, float64(bads)/float64(steps), 1.0/1000)
	assert.Less(t, float64(inconclusives)/float64(steps), 1.0/100)
}

// equals are what both generations are like.
func equals(t *testing.T) iter.Seq2[string, generation] {
	return func(yield func(string, generation) bool) {
		all := shapes()
		for _, name := range slices.Sorted(maps.Keys(all)) {
			if !yield(name, generation{draws(t, all[name]), 0}) {
				return
			}
		}
		latency := draws(t, lognormal(10*time.Millisecond, 0.5))
		for _, failing := range []float64{0.001, 0.01, 0.05, 0.2, 0.9, 1} {
			if !yield(fmt.Sprintf("%v fail", failing), generation{latency, failing}) {
				return
			}
		}
	}
}

func TestAWorseGenerationIsCalledBad(t *testing.T) {
	usual := lognormal(10*time.Millisecond, 1)
	for name, c := range map[string]struct {
		was, is  func(*rand.Rand) time.Duration
		fail     [2]float64
		requests int
		share    float64
	}{
		"5 % fail":                        {usual, usual, [2]float64{0, 0.05}, 300, 0.05},
		"5 % fail, at a larger share":     {usual, usual, [2]float64{0, 0.05}, 1000, 0.5},
		"5 % fail, where some always did": {usual, usual, [2]float64{0.01, 0.06}, 1000, 0.05},
		"half of them fail":               {usual, usual, [2]float64{0, 0.5}, 60, 0.05},
		"three times as slow":             {usual, lognormal(30*time.Millisecond, 1), [2]float64{}, 300, 0.05},
		"three times as slow, of few":     {usual, lognormal(30*time.Millisecond, 1), [2]float64{}, 150, 0.25},
		"three times as slow, of many":    {usual, lognormal(30*time.Millisecond, 1), [2]float64{}, 5000, 0.5},
		"three times as slow, and wide":   {lognormal(10*time.Millisecond, 2), lognormal(30*time.Millisecond, 2), [2]float64{}, 1000, 0.05},
		"slower by the same for all":      {lognormal(time.Millisecond, 1), func(r *rand.Rand) time.Duration { return lognormal(time.Millisecond, 1)(r) + 5*time.Millisecond }, [2]float64{}, 300, 0.05},
		"most run into a timeout":         {usual, mixture(0.4, usual, lognormal(5*time.Second, 0.1)), [2]float64{}, 300, 0.05},
	} {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(5, 6))
			s := step{
				old:      generation{draws(t, c.was), c.fail[0]},
				new:      generation{draws(t, c.is), c.fail[1]},
				requests: c.requests, share: c.share,
			}
			n := runs(500)
			missed := 0
			for range n {
				if bad, last := s.run(r); !bad {
					missed++
					t.Log(last.Verdict, last.Reason)
				}
			}
			t.Logf("%d of %d were missed", missed, n)
			assert.LessOrEqual(t, missed*1000, n)
		})
	}
}

// TestWhatIsColdOrStallsIsNotCalledBad has the new generation be slow in its first
// second, and stand still for another one later.
func TestWhatIsColdOrStallsIsNotCalledBad(t *testing.T) {
	warm := draws(t, lognormal(10*time.Millisecond, 0.5))
	cold := draws(t, lognormal(300*time.Millisecond, 0.5))
	r := rand.New(rand.NewPCG(7, 8))
	for _, perSecond := range []int{60, 500} {
		for range runs(20) {
			var was, is pulse.Sample
			for i := 1; i <= looks; i++ {
				g := generation{warm, 0}
				if i == 1 || i == 20 {
					g.latency = cold
				}
				g.answer(r, &is, perSecond)
				generation{warm, 0}.answer(r, &was, 3*perSecond)
				v := verdict.Compare(was, is, time.Duration(i)*time.Second, verdict.Policy{})
				if i == looks {
					require.Equal(t, control.VerdictGood, v.Verdict, v.Reason)
				}
				require.NotEqual(t, control.VerdictBad, v.Verdict, v.Reason)
			}
		}
	}
}
