package main

import (
	"unicode/utf8"
)

// table prints columns. It is not text/tabwriter because that one can align
// either all columns to the right or none, and counts the bytes of a colour as
// width.
type table struct {
	columns []column
	rows    [][]cell
	widths  []int // of the columns so far, without their headers
}

// column is a column: its header, and where its numbers go.
type column struct {
	name  string
	right bool // align to the right
}

// cell is a cell in a style.
type cell struct {
	text  string
	style style
}

func left(name string) column  { return column{name: name} }
func right(name string) column { return column{name: name, right: true} }

// text makes a cell of what a service says.
func text(s string) cell { return cell{text: orDash(clean(s))} }

func (t *table) add(cells ...cell) {
	if t.widths == nil {
		t.widths = make([]int, len(t.columns))
	}
	for i, c := range cells {
		t.widths[i] = max(t.widths[i], utf8.RuneCountInString(c.text))
	}
	t.rows = append(t.rows, cells)
}

// print prints the table, with two spaces between the columns and none at the
// ends of the lines. It goes out in few writes: it may have very many rows.
func (t *table) print(out *terminal, legend bool) {
	if len(t.rows) == 0 {
		return
	}
	out.endProgress()
	const enough = 64 << 10
	buf := make([]byte, 0, enough+4096)
	if legend {
		header := make([]cell, len(t.columns))
		for i, c := range t.columns {
			header[i] = cell{c.name, plain}
			t.widths[i] = max(t.widths[i], utf8.RuneCountInString(c.name))
		}
		buf = t.appendRow(buf, out, header)
	}
	for _, row := range t.rows {
		if buf = t.appendRow(buf, out, row); len(buf) >= enough {
			_, _ = out.stdout.Write(buf)
			buf = buf[:0]
		}
	}
	_, _ = out.stdout.Write(buf)
}

func (t *table) appendRow(buf []byte, out *terminal, row []cell) []byte {
	space := 0 // that is due before the next character
	for i, c := range row {
		padding := t.widths[i] - utf8.RuneCountInString(c.text)
		if t.columns[i].right {
			space, padding = space+padding, 0
		}
		if c.text != "" {
			for range space {
				buf = append(buf, ' ')
			}
			space = 0
			buf = append(buf, out.paint(c.style, c.text)...)
		}
		space += padding + 2
	}
	return append(buf, '\n')
}
