package verdict

import "math"

// accident returns how likely it is that k of n or more are of a kind of which there
// are also otherK in another group of otherN, if the groups do not differ: Fisher's
// exact test, with one side. It is exact for small counts, such as the few errors
// that a first share can show, where the usual approximation by a normal
// distribution sees a proof too early.
func accident(k, n, otherK, otherN uint64) float64 {
	// How many of the kind are among n drawn from all is distributed
	// hypergeometrically. In float64, because all of them may be many.
	x, draws := float64(k), float64(n)
	kind, all := float64(k+otherK), float64(n+otherN)
	if x*all <= draws*kind {
		return 1 // not even more than its share
	}
	term := math.Exp(logChoose(kind, x) + logChoose(all-kind, draws-x) - logChoose(all, draws))
	sum := 0.0
	for x <= min(kind, draws) && term > sum*1e-12 { // terms fall ever faster above the mean
		sum += term
		term *= (kind - x) * (draws - x) / ((x + 1) * (all - kind - draws + x + 1))
		x++
	}
	return min(sum, 1)
}

// logChoose returns the logarithm of the binomial coefficient.
func logChoose(n, k float64) float64 {
	return logFactorial(n) - logFactorial(k) - logFactorial(n-k)
}

func logFactorial(n float64) float64 {
	l, _ := math.Lgamma(n + 1)
	return l
}
