package main

import (
	"bytes"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Hour:              "0s",
		0:                       "0s",
		400 * time.Millisecond:  "0s",
		42 * time.Second:        "42s",
		192 * time.Second:       "3m12s",
		724 * time.Second:       "12m04s",
		3600 * time.Second:      "1h00m",
		125 * time.Minute:       "2h05m",
		76*time.Hour + 1:        "3d04h",
		math.MaxInt64:           "106751d23h",
		59*time.Second + 6e8:    "1m00s",
		3599*time.Second + 9e8:  "1h00m",
		86399*time.Second + 9e8: "1d00h",
	} {
		assert.Equal(t, want, age(d), "%v", d)
	}
	assert.Equal(t, "-", since(time.Now(), time.Time{}))
}

func TestLasted(t *testing.T) {
	for s, want := range map[float64]string{
		0: "0ms", -1: "0ms", 0.0412: "41ms", 0.9996: "1.00s", 2.043: "2.04s", 12.34: "12.3s", 59.96: "1m00s", 602: "10m02s", 1e300: "a very long time",
	} {
		assert.Equal(t, want, lasted(s), "%v", s)
	}
	assert.Equal(t, "0ms", lasted(math.NaN()))
}

func TestBrief(t *testing.T) {
	for s, want := range map[float64]string{30: "30s", 1.5: "1.5s", 600: "10m", 3600: "1h", 5400: "1h30m", 0.25: "250ms", 90: "1m30s"} {
		assert.Equal(t, want, brief(s), "%v", s)
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{
		-1: "-", 0: "-", 1: "1B", 1023: "1023B", 1024: "1.0K", 41 << 20: "41M", 1300 << 20: "1.3G", 1<<20 - 1: "1.0M", math.MaxInt64: "8.0E",
	} {
		assert.Equal(t, want, size(n), "%d", n)
	}
}

// What a service says cannot move the cursor, ring the bell, break a line, or
// write backwards.
func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"":                    "",
		"plain é ·":           "plain é ·",
		"a\tb":                "a b",
		"a\nb\r\x1b[2J\x07":   "a<0a>b<0d><1b>[2J<07>",
		"\u0085\u009b31m":     "<85><9b>31m",
		"gnp.\u202etxt":       "gnp.<202e>txt",
		"zero\u200bwidth":     "zero<200b>width",
		"\u2028":              "<2028>",
		"not\xffutf8":         "not<fffd>utf8",
		"\x1b]0;title\x07end": "<1b>]0;title<07>end",
	} {
		assert.Equal(t, want, clean(in))
	}
}

func TestTruncate(t *testing.T) {
	assert.Equal(t, "abc", truncate("abc", 3))
	assert.Equal(t, "ab>", truncate("abcd", 3))
	assert.Equal(t, "éé>", truncate("éééé", 3))
	assert.Equal(t, "abc", truncate("abc", 0))
}

func TestTable(t *testing.T) {
	tab := &table{columns: []column{left("NAME"), right("N"), left("REST")}}
	tab.add(text("é"), cell{text: "5"}, text(""))
	tab.add(text("longer"), cell{"1234", red}, cell{"x", green})
	var b bytes.Buffer
	tab.print(&terminal{stdout: &b}, true)
	assert.Equal(t, "NAME       N  REST\né          5  -\nlonger  1234  x\n", b.String())
	b.Reset()
	tab.print(&terminal{stdout: &b, colour: true}, false)
	assert.Equal(t, "é          5  -\nlonger  \x1b[1;31m1234\x1b[0m  \x1b[32mx\x1b[0m\n", b.String())
	b.Reset()
	(&table{columns: tab.columns}).print(&terminal{stdout: &b}, true)
	assert.Empty(t, b.String())
}
