package pulse_test

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hdctl/handoff/upgrade/internal/pulse"
)

func TestReportReplacesWhatIsObserved(t *testing.T) {
	p := newPage(t)
	p.Observe(time.Second, true)
	p.Report(10, 3, 5*time.Second)
	p.Observe(time.Second, true)
	s := p.Sample()
	assert.Equal(t, pulse.Sample{Requests: 10, Errors: 3, Latency: 5 * time.Second}, s)
	assert.Zero(t, s.Quantile(0.5))
	assert.Equal(t, 500*time.Millisecond, s.Mean())

	p.Report(12, 3, 0)
	assert.Equal(t, pulse.Sample{Requests: 12, Errors: 3}, p.Sample())
	assert.Zero(t, p.Sample().Mean(), "unknown")

	p.Report(5, 9, -time.Second)
	assert.Equal(t, pulse.Sample{Requests: 5, Errors: 5}, p.Sample(), "more errors than requests")
}

func TestObserveNegative(t *testing.T) {
	p := newPage(t)
	p.Observe(time.Second, false)
	p.Observe(-time.Second, false) // a clock that was set back
	s := p.Sample()
	assert.EqualValues(t, 2, s.Requests)
	assert.Equal(t, time.Second, s.Latency)
}

func TestMinus(t *testing.T) {
	p := newPage(t)
	p.Observe(time.Millisecond, true)
	p.Observe(time.Second, false)
	before := p.Sample()
	p.Observe(20*time.Millisecond, false)
	p.Observe(20*time.Millisecond, true)
	after := p.Sample()

	d := after.Minus(before)
	assert.EqualValues(t, 2, d.Requests)
	assert.EqualValues(t, 1, d.Errors)
	assert.Equal(t, 40*time.Millisecond, d.Latency)
	assert.InEpsilon(t, 20*time.Millisecond, d.Quantile(0.5), 0.25, "what was before is not in it")
	assert.InEpsilon(t, 20*time.Millisecond, d.Quantile(1), 0.25)

	assert.Zero(t, after.Minus(after))
	assert.Zero(t, before.Minus(after), "backwards")
	assert.Equal(t, after, after.Minus(pulse.Sample{}))

	// The request is in the earlier sample, its error is not.
	earlier, later := before, before
	later.Errors++
	assert.Zero(t, later.Minus(earlier).Errors)
}

func TestBucketsAreNarrow(t *testing.T) {
	const from, to = 20 * time.Microsecond, 100 * time.Second
	assert.Less(t, pulse.Lower(1), from)
	assert.Greater(t, pulse.Lower(pulse.NBuckets-1), to)
	assert.Zero(t, pulse.Lower(0))
	for i := range pulse.NBuckets - 1 {
		assert.Equal(t, pulse.Upper(i), pulse.Lower(i+1), "bucket %d", i)
		assert.Less(t, pulse.Lower(i), pulse.Upper(i), "bucket %d", i)
		if i > 0 {
			assert.LessOrEqual(t, float64(pulse.Upper(i))/float64(pulse.Lower(i)), 1.25, "bucket %d", i)
		}
	}
}

func TestBucket(t *testing.T) {
	for i := 1; i < pulse.NBuckets; i++ {
		assert.Equal(t, i, pulse.Bucket(pulse.Lower(i)))
		assert.Equal(t, i-1, pulse.Bucket(pulse.Lower(i)-1))
	}
	for _, d := range []time.Duration{math.MinInt64, -1, 0, 1} {
		assert.Equal(t, 0, pulse.Bucket(d))
	}
	assert.Equal(t, pulse.NBuckets-1, pulse.Bucket(math.MaxInt64))
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64().Draw(t, "d"))
		i := pulse.Bucket(d)
		require.True(t, i >= 0 && i < pulse.NBuckets)
		require.True(t, d < 0 || d >= pulse.Lower(i))
		require.True(t, i == pulse.NBuckets-1 || d < pulse.Upper(i))
	})
}

// TestQuantile compares with the answer of somebody who has kept everything.
func TestQuantile(t *testing.T) {
	p := newPage(t)
	rapid.Check(t, func(t *rapid.T) {
		before := p.Sample()
		// Spread evenly over the orders of magnitude.
		exps := rapid.SliceOfN(rapid.Float64Range(math.Log(20e3), math.Log(100e9)), 1, 300).Draw(t, "exps")
		var all []time.Duration
		for _, e := range exps {
			all = append(all, time.Duration(math.Exp(e)))
			p.Observe(all[len(all)-1], false)
		}
		slices.Sort(all)
		s := p.Sample().Minus(before)
		q := rapid.Float64Range(0.001, 1).Draw(t, "q")
		want := all[int(math.Ceil(q*float64(len(all))))-1]
		require.InEpsilon(t, want, s.Quantile(q), 0.25)
		require.LessOrEqual(t, s.Quantile(q), s.Quantile(1))
	})
}

func TestQuantileAtTheEdges(t *testing.T) {
	var s pulse.Sample
	for _, q := range []float64{-1, 0, 0.5, 1, 2, math.NaN(), math.Inf(1)} {
		assert.Zero(t, s.Quantile(q), "no requests, %v", q)
	}
	s.Buckets[pulse.Bucket(time.Millisecond)] = 4
	i := pulse.Bucket(time.Millisecond)
	assert.Equal(t, pulse.Lower(i), s.Quantile(0))
	assert.Equal(t, pulse.Lower(i), s.Quantile(-1))
	assert.Equal(t, pulse.Upper(i), s.Quantile(1))
	assert.Equal(t, pulse.Upper(i), s.Quantile(2))
	assert.Equal(t, (pulse.Lower(i)+pulse.Upper(i))/2, s.Quantile(0.5), "interpolated")
	assert.Zero(t, s.Quantile(math.NaN()))

	for i := range s.Buckets {
		s.Buckets[i] = math.MaxUint64
	}
	assert.Equal(t, pulse.Upper(pulse.NBuckets-1), s.Quantile(1))
	assert.Equal(t, pulse.Lower(pulse.NBuckets-1), s.Quantile(1), "the last has no upper end")
}

func TestCountingAllocatesNothing(t *testing.T) {
	p := newPage(t)
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		p.Observe(time.Millisecond, true)
		p.Slot(3).Accepted()
		p.Slot(3).SetWaiting(1)
		p.Report(1, 1, 1)
	}))
}

func BenchmarkObserve(b *testing.B) {
	p := newPage(b)
	took := time.Duration(0)
	for b.Loop() {
		p.Observe(took, false)
		took = (took + 100*time.Microsecond) & (1<<30 - 1)
	}
}

func BenchmarkObserveParallel(b *testing.B) {
	p := newPage(b)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			p.Observe(3*time.Millisecond, false)
		}
	})
}

func BenchmarkAccepted(b *testing.B) {
	s := newPage(b).Slot(5)
	for b.Loop() {
		s.Accepted()
	}
}

func BenchmarkSample(b *testing.B) {
	p := newPage(b)
	for b.Loop() {
		p.Sample()
	}
}

func TestObserveWithoutATime(t *testing.T) {
	p := newPage(t)
	p.Observe(10*time.Millisecond, false)
	p.Observe(-1, false)
	p.Observe(-1, true)
	s := p.Sample()
	assert.EqualValues(t, 3, s.Requests)
	assert.EqualValues(t, 1, s.Errors)
	assert.Equal(t, 10*time.Millisecond, s.Mean(), "of the one whose time is known")
	assert.Greater(t, s.Quantile(0), 5*time.Millisecond)
	assert.EqualValues(t, 1, s.Minus(pulse.Sample{Requests: 2}).Requests)
}
