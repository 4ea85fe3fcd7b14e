package doctor

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// timeSpan reads a span of time as systemd prints it: "1min 30s", "500ms", "0",
// "infinity", which is 0 as well: no limit. See systemd.time(7).
func timeSpan(text string) (time.Duration, bool) {
	if text == "0" || text == "infinity" {
		return 0, true
	}
	var sum time.Duration
	for _, word := range strings.Fields(text) {
		i := strings.IndexFunc(word, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
		if i <= 0 {
			return 0, false
		}
		n, err := strconv.ParseFloat(word[:i], 64)
		unit, ok := spanUnit(word[i:])
		if err != nil || !ok || n*float64(unit) > math.MaxInt64/2 {
			return 0, false
		}
		sum += time.Duration(n * float64(unit))
	}
	return sum, text != ""
}

func spanUnit(name string) (time.Duration, bool) {
	const day = 24 * time.Hour
	switch name {
	case "us":
		return time.Microsecond, true
	case "ms":
		return time.Millisecond, true
	case "s":
		return time.Second, true
	case "min":
		return time.Minute, true
	case "h":
		return time.Hour, true
	case "d":
		return day, true
	case "w":
		return 7 * day, true
	case "month":
		return 2629800 * time.Second, true
	case "y":
		return 31557600 * time.Second, true
	}
	return 0, false
}
