package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestReadHistory(t *testing.T) {
	line := func(to int) string { return fmt.Sprintf(`{"outcome":"confirmed","to":%d}`+"\n", to) }
	for _, tt := range []struct {
		name         string
		newer, older string // "-": no file
		limit        int
		want         []int
		skipped      int
		fails        error
	}{
		{name: "none", newer: "-", older: "-", fails: fs.ErrNotExist},
		{name: "empty", newer: "", older: "-"},
		{name: "one file", newer: line(1) + line(2), older: "-", want: []int{2, 1}},
		{name: "only the older", newer: "-", older: line(1), want: []int{1}},
		{name: "two files", newer: line(3), older: line(1) + line(2), want: []int{3, 2, 1}},
		{name: "limit", newer: line(3), older: line(1) + line(2), limit: 2, want: []int{3, 2}},
		{name: "limit in the newer", newer: line(1) + line(2) + line(3), older: "{", limit: 3, want: []int{3, 2, 1}},
		{name: "half a line at the end", newer: line(1) + line(2)[:12], older: "-", want: []int{1}, skipped: 1},
		{name: "half a line in the middle", newer: line(1) + line(2)[:12] + "\n\n" + line(3), older: "-", want: []int{3, 1}, skipped: 1},
		{name: "other things", newer: "null\n7\n[]\n{}\n" + strings.Repeat("\x00", 100) + "\n" + line(1), older: "-", want: []int{1}, skipped: 5},
		{name: "no newline at the end", newer: strings.TrimSpace(line(1)), older: "-", want: []int{1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, content := range map[string]string{"history.jsonl": tt.newer, "history.jsonl.1": tt.older} {
				if content != "-" {
					require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
				}
			}
			entries, skipped, err := readHistory(dir, tt.limit)
			require.ErrorIs(t, err, tt.fails)
			var got []int
			for _, e := range entries {
				got = append(got, e.To)
			}
			assert.Equal(t, tt.want, got)
			assert.Equal(t, tt.skipped, skipped)
		})
	}
}

// Neither a FIFO nor a directory holds hdctl up, or fills it.
func TestReadHistoryOfOddFiles(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, unix.Mkfifo(filepath.Join(dir, "history.jsonl"), 0o600))
	_, _, err := readHistory(dir, 0)
	require.ErrorIs(t, err, fs.ErrInvalid)
}

// Of a file that is much too long, the end is read.
func TestReadHistoryIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.jsonl")
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, f.Truncate(1<<30))
	_, err = f.WriteAt([]byte("\n"+`{"outcome":"failed","to":9}`+"\n"), 1<<30)
	require.NoError(t, err)
	entries, skipped, err := readHistory(filepath.Dir(path), 0)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	assert.Equal(t, 9, entries[0].To)
	assert.Equal(t, 1, skipped)
}

// A state directory of a user's service.
func TestStateOf(t *testing.T) {
	a, _, _ := testApp(t)
	a.stateDir = stateRoot
	assert.Equal(t, "/var/lib/handoff/app", a.stateOf(target{name: "app"}))
	a.globals.User = true
	a.env["HOME"] = "/home/ann"
	assert.Equal(t, "/home/ann/.local/state/handoff/app", a.stateOf(target{name: "app"}))
	a.env["XDG_STATE_HOME"] = "/state"
	assert.Equal(t, "/state/handoff/app", a.stateOf(target{name: "app"}))
}
