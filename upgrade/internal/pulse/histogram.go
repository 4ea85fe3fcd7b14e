package pulse

import (
	"math/bits"
	"time"
)

// The buckets of the histogram divide each power of two nanoseconds into four
// equal parts. So a bucket is at most 1.25 times as wide up as down, and the
// bucket of a duration is found by two shifts. They reach from 16 µs to 137 s;
// one bucket more takes what is below, and one what is above.
const (
	minExp = 14 // 2^14 ns
	maxExp = 37 // 2^37 ns
	parts  = 4

	// NBuckets is the number of buckets of the histogram of latencies.
	NBuckets = 1 + (maxExp-minExp)*parts + 1
)

// bucket is the index of the bucket of d.
func bucket(d time.Duration) int {
	if d < 1<<minExp {
		return 0
	}
	exp := bits.Len64(uint64(d)) - 1
	if exp >= maxExp {
		return NBuckets - 1
	}
	part := int(d>>(exp-2)) & (parts - 1)
	return 1 + (exp-minExp)*parts + part
}

// lower is the least duration of bucket i.
func lower(i int) time.Duration {
	if i == 0 {
		return 0
	}
	exp, part := minExp+(i-1)/parts, (i-1)%parts
	return time.Duration(parts+part) << (exp - 2)
}

// upper is the end of bucket i, or of the one above all its beginning.
func upper(i int) time.Duration {
	return lower(min(i+1, NBuckets-1))
}

// Quantile is the duration that the fraction q of the requests did not exceed:
// 0.5 for the median. Between the bounds of a bucket, which differ by a quarter at
// most, it is interpolated. What took longer than 137 s counts as 137 s.
//
// It is 0 if there are no buckets, that is, no requests or a service that
// reports totals of its own.
func (s Sample) Quantile(q float64) time.Duration {
	var total float64
	for _, n := range s.Buckets {
		total += float64(n)
	}
	if total == 0 || q != q {
		return 0
	}
	rank := min(max(q, 0), 1) * total
	var below float64
	last := 0
	for i, n := range s.Buckets {
		if n == 0 {
			continue
		}
		if below+float64(n) >= rank {
			lo, hi := lower(i), upper(i)
			return lo + time.Duration(float64(hi-lo)*(rank-below)/float64(n))
		}
		below += float64(n)
		last = i
	}
	return upper(last) // what rounding has left over
}
