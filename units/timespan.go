package units

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// Infinity is the time span "infinity".
const Infinity = time.Duration(math.MaxInt64)

const spanSpace = " \t\n\r"

// timeUnits are the units of time of systemd.time(7); of two that begin alike, the
// longer one is first.
var timeUnits = []struct {
	name string
	unit time.Duration
}{
	{"seconds", time.Second},
	{"second", time.Second},
	{"sec", time.Second},
	{"s", time.Second},
	{"minutes", time.Minute},
	{"minute", time.Minute},
	{"min", time.Minute},
	{"months", month},
	{"month", month},
	{"M", month},
	{"msec", time.Millisecond},
	{"ms", time.Millisecond},
	{"m", time.Minute},
	{"hours", time.Hour},
	{"hour", time.Hour},
	{"hr", time.Hour},
	{"h", time.Hour},
	{"days", day},
	{"day", day},
	{"d", day},
	{"weeks", 7 * day},
	{"week", 7 * day},
	{"w", 7 * day},
	{"years", year},
	{"year", year},
	{"y", year},
	{"usec", time.Microsecond},
	{"us", time.Microsecond},
	{"µs", time.Microsecond},
	{"μs", time.Microsecond},
}

const (
	day   = 24 * time.Hour
	month = 2629800 * time.Second
	year  = 31557600 * time.Second
)

// ParseSpan reads a time span as systemd does: "90", "1min 30s", "1.5s", "infinity".
// A number without a unit is one of seconds. The zero of a time limit is up to the
// caller: to some settings it is none, as [Infinity] is.
func ParseSpan(s string) (time.Duration, bool) {
	s = strings.Trim(s, spanSpace)
	if s == "infinity" {
		return Infinity, true
	}
	if s == "" {
		return 0, false
	}
	var sum time.Duration
	for s != "" {
		end := len(s) - len(strings.TrimLeft(s, "0123456789"))
		if strings.HasPrefix(s[end:], ".") {
			rest := s[end+1:]
			fraction := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
			if fraction == 0 {
				return 0, false
			}
			end += 1 + fraction
		}
		number, err := strconv.ParseFloat(s[:end], 64)
		if err != nil {
			return 0, false
		}
		s = strings.TrimLeft(s[end:], spanSpace)
		unit := time.Second
		for _, u := range timeUnits {
			if rest, ok := strings.CutPrefix(s, u.name); ok {
				unit, s = u.unit, rest
				break
			}
		}
		add := number * float64(unit)
		if add >= float64(Infinity-sum) {
			return 0, false // systemd: numerical result out of range
		}
		sum += time.Duration(math.Round(add))
		s = strings.TrimLeft(s, spanSpace)
	}
	return sum, true
}
