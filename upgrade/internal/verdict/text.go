package verdict

import (
	"fmt"
	"strconv"
	"time"
)

// errorsText is how many requests failed, of both.
func errorsText(was, is group) string {
	return fmt.Sprintf("%s of %s requests failed, of the old one %s of %s",
		percent(is.failed()), count(is.Requests), percent(was.failed()), count(was.Requests))
}

// timeText compares two times, such as medians.
func timeText(what string, was, is time.Duration) string {
	return fmt.Sprintf("%s %v, of the old one %v", what, round(is), round(was))
}

// percent writes a fraction with one decimal, and what is less than that can show
// with two: a few errors of many are not none.
func percent(f float64) string {
	p := 100 * f
	switch {
	case p == 0 || p >= 0.1:
		return strconv.FormatFloat(p, 'f', 1, 64) + "%"
	case p >= 0.01:
		return strconv.FormatFloat(p, 'f', 2, 64) + "%"
	}
	return "less than 0.01%"
}

// count writes a number with commas between thousands.
func count(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// round leaves two significant digits, which is about how well latencies are known.
func round(d time.Duration) time.Duration {
	unit := time.Duration(1)
	for d/unit >= 100 {
		unit *= 10
	}
	return d.Round(unit)
}
