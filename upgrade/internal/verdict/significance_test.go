package verdict

import (
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"pgregory.net/rapid"

	"github.com/hdctl/handoff/upgrade/internal/pulse"
)

// TestAccidentIsExact compares with a sum of fractions of whole numbers.
func TestAccidentIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, m := rapid.Int64Range(1, 300).Draw(t, "n"), rapid.Int64Range(1, 300).Draw(t, "m")
		k, l := rapid.Int64Range(0, n).Draw(t, "k"), rapid.Int64Range(0, m).Draw(t, "l")
		got := accident(uint64(k), uint64(n), uint64(l), uint64(m))
		if k*m <= l*n {
			assert.Equal(t, 1.0, got)
			return
		}
		sum := new(big.Int)
		for x := k; x <= min(k+l, n); x++ {
			sum.Add(sum, new(big.Int).Mul(new(big.Int).Binomial(n, x), new(big.Int).Binomial(m, k+l-x)))
		}
		want, _ := new(big.Rat).SetFrac(sum, new(big.Int).Binomial(n+m, k+l)).Float64()
		assert.InEpsilon(t, want, got, 1e-9)
	})
}

func TestSlowerThanCounts(t *testing.T) {
	g := groupOf(pulse.Sample{})
	assert.Zero(t, g.slowerThan(time.Second))
	var s pulse.Sample
	s.Buckets[10], s.Buckets[40] = 30, 12
	g = groupOf(s)
	between := (g.Quantile(0.5) + g.Quantile(1)) / 2
	assert.EqualValues(t, 42, g.slowerThan(0))
	assert.EqualValues(t, 12, g.slowerThan(between))
	assert.Zero(t, g.slowerThan(g.Quantile(1)))
	assert.InDelta(t, 21, g.slowerThan(g.Quantile(0.5)), 1, "half of them")
}
