package main

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// series are measurements of the same thing.
type series []float64

// quantile is the value below which the part q of the series is; NaN of none.
func (s series) quantile(q float64) float64 {
	if len(s) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(s))
	// Between two values, as the median of an even number of them is.
	at := q * float64(len(sorted)-1)
	low := int(at)
	high := min(low+1, len(sorted)-1)
	return sorted[low] + (sorted[high]-sorted[low])*(at-float64(low))
}

func (s series) median() float64 { return s.quantile(0.5) }
func (s series) min() float64    { return s.quantile(0) }
func (s series) max() float64    { return s.quantile(1) }

// combine applies f to what was measured in the same round.
func combine(a, b series, f func(a, b float64) float64) series {
	var s series
	for i := range min(len(a), len(b)) {
		s = append(s, f(a[i], b[i]))
	}
	return s
}

// format shows a number with its unit.
type format func(float64) string

func plain(v float64) string  { return grouped(v) }
func micros(v float64) string { return threeDigits(v) + " µs" }
func millis(v float64) string { return threeDigits(v) + " ms" }
func octets(v float64) string { return grouped(v) + " B" }

func tenths(v float64) string {
	if math.Abs(v) < 0.05 {
		v = 0 // never -0.0
	}
	return fmt.Sprintf("%.1f", v)
}

func hundredths(v float64) string { return fmt.Sprintf("%.2f", v) }

// spread is the median of s, with the least and the greatest.
func spread(s series, f format) string {
	if len(s) == 0 {
		return "-"
	}
	if len(s) == 1 || f(s.min()) == f(s.max()) {
		return f(s.median())
	}
	low := f(s.min())
	if number, unit, ok := strings.Cut(low, " "); ok && strings.HasSuffix(f(s.max()), unit) {
		low = number
	}
	return fmt.Sprintf("%s (%s to %s)", f(s.median()), low, f(s.max()))
}

func threeDigits(v float64) string {
	switch abs := math.Abs(v); {
	case abs >= 100:
		return grouped(v)
	case abs >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// grouped is v as a whole number, with a comma after each three digits.
func grouped(v float64) string {
	text := fmt.Sprintf("%.0f", math.Abs(v))
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	if v <= -0.5 {
		text = "-" + text
	}
	return text
}

// inMicros and inMillis are d as a number for [micros] and [millis].
func inMicros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
func inMillis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// machine describes what is measured on.
func machine() string {
	kernel := "?"
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		kernel = unix.ByteSliceToString(u.Release[:])
	}
	return fmt.Sprintf("%s, %s/%s, %d CPUs, Linux %s, load average before %s",
		runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), kernel, loadAverage())
}

// loadAverage is that of the last minute.
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "?"
	}
	first, _, _ := strings.Cut(string(text), " ")
	return first
}
