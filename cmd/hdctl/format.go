package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// age prints how long something lasts: 0s, 42s, 3m12s, 12m04s, 2h05m, 3d04h.
func age(d time.Duration) string {
	s := int64(d.Round(time.Second) / time.Second)
	switch {
	case s <= 0:
		return "0s"
	case s < 60:
		return strconv.FormatInt(s, 10) + "s"
	case s < 3600:
		return twoUnits(s/60, 'm', s%60, 's')
	case s < 24*3600:
		return twoUnits(s/3600, 'h', s/60%60, 'm')
	}
	return twoUnits(s/(24*3600), 'd', s/3600%24, 'h')
}

// twoUnits is "3m07s". There can be very many of them in a table, and fmt takes
// its time.
func twoUnits(n int64, unit byte, rest int64, restUnit byte) string {
	var buf [24]byte
	b := append(strconv.AppendInt(buf[:0], n, 10), unit)
	return string(append(b, byte('0'+rest/10), byte('0'+rest%10), restUnit))
}

// since is the age of t at now; "-" if there is no t.
func since(now, t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return age(now.Sub(t))
}

// clock prints when t was, as of now: 02:14 of the last day, else with its date.
func clock(t, now time.Time) string {
	if d := now.Sub(t); d >= 0 && d < 24*time.Hour {
		return t.Local().Format("15:04")
	}
	return t.Local().Format("2006-01-02 15:04")
}

// lasted prints a measured time, in seconds, with three digits: 41ms, 2.04s.
func lasted(seconds float64) string {
	switch {
	case math.IsNaN(seconds) || seconds <= 0:
		return "0ms"
	case seconds < 0.9995:
		return fmt.Sprintf("%.0fms", seconds*1000)
	case seconds < 9.995:
		return fmt.Sprintf("%.2fs", seconds)
	case seconds < 59.95:
		return fmt.Sprintf("%.1fs", seconds)
	case seconds > 1e9: // 30 years: not a measured time
		return "a very long time"
	}
	return age(time.Duration(seconds * float64(time.Second)))
}

// brief prints a set time, in seconds, as it was probably set: 30s, 1.5s, 10m.
func brief(seconds float64) string {
	s := time.Duration(seconds * float64(time.Second)).Round(time.Millisecond).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// size prints a number of bytes as ls -h does: 41M, 1.2G; "-" for none.
func size(n int64) string {
	if n <= 0 {
		return "-"
	}
	const units = "BKMGTPE"
	f, i := float64(n), 0
	for f >= 1023.5 && i < len(units)-1 {
		f /= 1024
		i++
	}
	digits := 0
	if i > 0 && f < 9.95 {
		digits = 1
	}
	var buf [24]byte
	return string(append(strconv.AppendFloat(buf[:0], f, 'f', digits, 64), units[i]))
}

// count is "1 connection", "2 connections".
func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return strconv.Itoa(n) + " " + what
}

// orDash prints something where there is nothing.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// named is "generation 7 (v2.3.1)", without the parentheses if there is nothing
// to put into them.
func named(number int, version string) string {
	return fmt.Sprintf("generation %d%s", number, inParens(version))
}

// inParens is " (a, b)" of what is not empty.
func inParens(parts ...string) string {
	var some []string
	for _, p := range parts {
		if p != "" {
			some = append(some, clean(p))
		}
	}
	if some == nil {
		return ""
	}
	return " (" + strings.Join(some, ", ") + ")"
}
