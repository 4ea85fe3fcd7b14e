package main

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// table is Markdown, with columns as wide as they need to be.
type table struct{ rows [][]string }

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

// print writes the table, of which the first row is the header, below a title.
func (t *table) print(w io.Writer, title string) {
	var width []int
	for _, row := range t.rows {
		for i, cell := range row {
			if i == len(width) {
				width = append(width, 3)
			}
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	fmt.Fprintf(w, "\n%s\n\n", title)
	for i, row := range t.rows {
		writeRow(w, row, width)
		if i == 0 {
			line := make([]string, len(row))
			for i := range line {
				line[i] = strings.Repeat("-", width[i])
				if i > 0 { // numbers to the right
					line[i] = line[i][1:] + ":"
				}
			}
			writeRow(w, line, width)
		}
	}
}

func writeRow(w io.Writer, row []string, width []int) {
	var b strings.Builder
	for i, cell := range row {
		pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
		if i == 0 {
			b.WriteString("| " + cell + pad)
		} else {
			b.WriteString(" | " + pad + cell)
		}
	}
	b.WriteString(" |\n")
	_, _ = io.WriteString(w, b.String())
}
