package main

// Sides of a comparison. The control is the same as the plain one: what makes
// these two differ is noise.
const (
	sidePlain = iota
	sideTracked
	sideControl
	sideCount
)

// comparison is a table of measurements that were made on all sides, in turns.
type comparison struct{ lines []*line }

// line is one thing that is measured on all sides.
type line struct {
	name       string
	format     format
	difference bool // of interest is the difference, not the ratio
	summary    bool // one of those for the summary
	sides      [sideCount]series
}

// add adds a measurement of a side.
func (c *comparison) add(side int, name string, f format, v float64) *line {
	for _, l := range c.lines {
		if l.name == name {
			l.sides[side] = append(l.sides[side], v)
			return l
		}
	}
	l := &line{name: name, format: f}
	l.sides[side] = series{v}
	c.lines = append(c.lines, l)
	return l
}

// changes are the ratios of a side to the plain one, in the same rounds, or the
// differences, and how they are shown.
func (l *line) changes(side int) (series, format) {
	if l.difference {
		return combine(l.sides[side], l.sides[sidePlain], func(a, b float64) float64 { return a - b }), l.format
	}
	return combine(l.sides[side], l.sides[sidePlain], func(a, b float64) float64 { return a / b }), hundredths
}

// change is the median of the changes, with their spread or without.
func (l *line) change(side int, withSpread bool) string {
	s, f := l.changes(side)
	if !withSpread {
		s = series{s.median()}
	}
	text := spread(s, f)
	if l.difference {
		return signed(text)
	}
	return text
}

func signed(text string) string {
	if text[0] == '-' {
		return text
	}
	return "+" + text
}

func (c *comparison) table() *table {
	t := new(table)
	t.row("", "bare net/http", "tracked", "tracked to bare (spread)", "noise: bare to bare (spread)")
	for _, l := range c.lines {
		t.row(l.name, l.format(l.sides[sidePlain].median()), l.format(l.sides[sideTracked].median()),
			l.change(sideTracked, true), l.change(sideControl, true))
	}
	return t
}
