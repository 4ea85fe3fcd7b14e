package units

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// diffContext is how many unchanged lines surround a change.
const diffContext = 3

// Diff returns the lines in which two texts differ, in the unified format of
// diff(1); "" if they are the same. The names are written into its head. A text
// that is nil is a file that does not exist.
func Diff(oldName string, old []byte, newName string, new []byte) string {
	if bytes.Equal(old, new) {
		return ""
	}
	if old == nil {
		oldName = "/dev/null"
	}
	if new == nil {
		newName = "/dev/null"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "--- %s\n+++ %s\n", oldName, newName)
	edits := diffLines(lines(old), lines(new))
	for len(edits) > 0 {
		first := slices.IndexFunc(edits, edit.changes)
		if first < 0 {
			break
		}
		start := max(first-diffContext, 0)
		// The hunk ends where so many lines are the same that the next would begin.
		end, same := first, 0
		for end < len(edits) && same <= 2*diffContext {
			if same++; edits[end].changes() {
				same = 0
			}
			end++
		}
		end -= max(same-diffContext, 0)
		writeHunk(&b, edits[start:end])
		edits = edits[end:]
	}
	return b.String()
}

// edit is a line of a diff: one of both texts (' '), of the old ('-') or of the
// new ('+').
type edit struct {
	op       byte
	line     string
	old, new int // lines before it in each
}

func (e edit) changes() bool { return e.op != ' ' }

func writeHunk(b *strings.Builder, hunk []edit) {
	var oldCount, newCount int
	for _, e := range hunk {
		if e.op != '+' {
			oldCount++
		}
		if e.op != '-' {
			newCount++
		}
	}
	fmt.Fprintf(b, "@@ -%s +%s @@\n", lineRange(hunk[0].old, oldCount), lineRange(hunk[0].new, newCount))
	for _, e := range hunk {
		b.WriteByte(e.op)
		b.WriteString(strings.TrimSuffix(e.line, "\n"))
		b.WriteByte('\n')
		if !strings.HasSuffix(e.line, "\n") {
			b.WriteString("\\ No newline at end of file\n")
		}
	}
}

// lineRange is where a hunk begins, and how long it is.
func lineRange(before, count int) string {
	switch count {
	case 0:
		return fmt.Sprintf("%d,0", before)
	case 1:
		return fmt.Sprint(before + 1)
	}
	return fmt.Sprintf("%d,%d", before+1, count)
}

func lines(text []byte) []string { return slices.Collect(strings.Lines(string(text))) }

// maxDiffCells bounds the table of diffLines: more than two files of a thousand
// lines need, and no unit has so many.
const maxDiffCells = 1 << 22

// diffLines turns old into new with the fewest edits, by their longest common
// subsequence. Texts that are too long for that are replaced as a whole.
func diffLines(old, new []string) []edit {
	// Most of both is the same: the table is for what is not.
	head := 0
	for head < min(len(old), len(new)) && old[head] == new[head] {
		head++
	}
	tail := 0
	for tail < min(len(old), len(new))-head && old[len(old)-1-tail] == new[len(new)-1-tail] {
		tail++
	}
	m, n := len(old)-head-tail, len(new)-head-tail
	// common[i][j] is the length of the longest common subsequence of what follows
	// line i of the old and line j of the new text.
	common := make([][]int32, m+1)
	if m*n <= maxDiffCells {
		cells := make([]int32, (m+1)*(n+1))
		for i := m; i >= 0; i-- {
			common[i] = cells[i*(n+1) : (i+1)*(n+1)]
			for j := n - 1; j >= 0 && i < m; j-- {
				if old[head+i] == new[head+j] {
					common[i][j] = common[i+1][j+1] + 1
				} else {
					common[i][j] = max(common[i+1][j], common[i][j+1])
				}
			}
		}
	}
	var edits []edit
	i, j := 0, 0
	for i < len(old) || j < len(new) {
		inside := i-head < m && j-head < n && i >= head && common[0] != nil
		switch {
		case i < head, i >= head+m && j >= head+n, inside && old[i] == new[j]:
			edits = append(edits, edit{' ', old[i], i, j})
			i, j = i+1, j+1
		case i < head+m && (!inside || common[i+1-head][j-head] >= common[i-head][j+1-head]):
			edits = append(edits, edit{'-', old[i], i, j})
			i++
		default:
			edits = append(edits, edit{'+', new[j], i, j})
			j++
		}
	}
	return edits
}
