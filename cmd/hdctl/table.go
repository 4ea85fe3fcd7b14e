package main

import (
	"strings"
	"unicode/utf8"
)

// table prints columns. It is not text/tabwriter because that one can align
// either all columns to the right or none, and counts the bytes of a colour as
// width.
type table struct {
	columns []column
	rows    [][]cell
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

func (t *table) add(cells ...cell) { t.rows = append(t.rows, cells) }

// print prints the table, with two spaces between the columns and none at the
// ends of the lines.
func (t *table) print(out *terminal, legend bool) {
	if len(t.rows) == 0 {
		return
	}
	widths := make([]int, len(t.columns))
	rows := t.rows
	if legend {
		header := make([]cell, len(t.columns))
		for i, c := range t.columns {
			header[i] = cell{c.name, plain}
		}
		rows = append([][]cell{header}, rows...)
	}
	for _, row := range rows {
		for i, c := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, c := range row {
			space := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text))
			if i > 0 {
				line.WriteString("  ")
			}
			switch {
			case t.columns[i].right:
				line.WriteString(space + out.paint(c.style, c.text))
			case i == len(row)-1:
				line.WriteString(out.paint(c.style, c.text))
			default:
				line.WriteString(out.paint(c.style, c.text) + space)
			}
		}
		out.printf("%s\n", strings.TrimRight(line.String(), " "))
	}
}
