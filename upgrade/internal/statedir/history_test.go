package statedir_test

import (
	"encoding/json"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/internal/statedir"
)

func TestAppend(t *testing.T) {
	leak.Check(t)
	defer unix.Umask(unix.Umask(0))
	d := open(t, t.TempDir())
	assert.Empty(t, numbers(t, d, 0), "no history yet")
	require.NoError(t, d.Append(entry{"a", 1, "x < y\nz"}))
	require.NoError(t, d.Append(map[string]int{"n": 2}))
	require.NoError(t, d.Append(json.RawMessage("{\n\"n\": 3\n}")))
	assert.Equal(t, `{"writer":"a","n":1,"text":"x < y\nz"}`+"\n"+`{"n":2}`+"\n"+`{"n":3}`+"\n", content(t, history(d)))
	assert.Equal(t, []int{3, 2, 1}, numbers(t, d, 0))
	assert.Equal(t, []int{3, 2}, numbers(t, d, 2))
	assert.Equal(t, []int{3, 2, 1}, numbers(t, d, 4))
	info, err := os.Stat(history(d))
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o640), info.Mode(), "even with umask 0")
}

func TestAppendRefuses(t *testing.T) {
	leak.Check(t)
	d := open(t, t.TempDir())
	empty := len(`{"writer":"","n":0,"text":""}` + "\n")
	require.NoError(t, d.Append(entry{N: 1, Text: text(statedir.MaxLine - empty)}))
	before := content(t, history(d))
	require.Len(t, before, statedir.MaxLine, "the longest line")

	require.ErrorIs(t, d.Append(entry{N: 1, Text: text(statedir.MaxLine - empty + 1)}), statedir.ErrTooLarge)
	for _, v := range []any{nil, 17, "text", []entry{{}}, json.RawMessage("true")} {
		require.ErrorContains(t, d.Append(v), "append to the history: ", "%v", v)
	}
	require.ErrorContains(t, d.Append(func() {}), "unsupported type")
	assert.Equal(t, before, content(t, history(d)))
	assert.Equal(t, []int{1}, numbers(t, d, 0), "the reader takes the longest line")
}

// TestGarbage is about what can be in the file that nobody wanted there.
func TestGarbage(t *testing.T) {
	const good = `{"n":1}`
	for _, test := range []struct {
		name    string
		before  string // what is in the file
		records []int  // what is read then
	}{
		{"a whole line", good + "\n", []int{1}},
		{"no newline at the end", good, []int{1}},
		{"CRLF", good + "\r\n", []int{1}},
		{"space around", "  " + good + " \t\n", []int{1}},
		{"blank lines", "\n\n" + good + "\n\n\n", []int{1}},
		{"half a line", good + "\n" + `{"n":2,"te`, []int{1}},
		{"half a line in the middle", `{"n":2,"te` + "\n" + good + "\n", []int{1}},
		{"a number that could be half of one", good + "\n17", []int{1}},
		{"zeros, after a power failure", good + "\n" + strings.Repeat("\x00", 4096), []int{1}},
		{"zeros and a newline", strings.Repeat("\x00", 4096) + "\n" + good + "\n", []int{1}},
		{"two objects in a line", `{"n":3}{"n":4}` + "\n" + good + "\n", []int{1}},
		{"no JSON", "what?\n" + good + "\n}{\n", []int{1}},
		{"arrays", "[1]\n" + good + "\n", []int{1}},
		{"a line that is too long", good + "\n" + `{"n":2,"text":"` + text(statedir.MaxLine) + `"}` + "\n", []int{1}},
		{"a line that is far too long", good + "\n" + `{"n":2,"text":"` + text(500_000) + `"}`, []int{1}},
		{"far too long at the beginning", `{"n":2,"text":"` + text(500_000) + `"}` + "\n" + good, []int{1}},
		{"deep", strings.Repeat(`{"a":`, 11_000) + strings.Repeat("}", 11_000) + "\n" + good, []int{1}},
		{"nothing", "", []int{}},
		{"one newline", "\n", []int{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			leak.Check(t)
			d := open(t, t.TempDir())
			put(t, history(d), test.before)
			assert.Equal(t, test.records, numbers(t, d, 0))
			require.NoError(t, d.Append(entry{N: 9}))
			assert.Equal(t, append([]int{9}, test.records...), numbers(t, d, 0))
			after := content(t, history(d))
			assert.True(t, strings.HasPrefix(after, test.before), "nothing is taken away")
			added := `{"writer":"","n":9}` + "\n"
			if !strings.HasSuffix(test.before, "\n") && test.before != "" {
				added = "\n" + added
			}
			assert.Equal(t, added, after[len(test.before):])
		})
	}
}

// TestRotation uses the real size.
func TestRotation(t *testing.T) {
	leak.Check(t)
	d := open(t, t.TempDir())
	size := func(path string) int64 {
		info, err := os.Stat(path)
		require.NoError(t, err)
		return info.Size()
	}
	n := 0
	add := func() {
		n++
		require.NoError(t, d.Append(entry{N: n, Text: text(50_000)}))
		require.LessOrEqual(t, size(history(d)), int64(statedir.MaxHistory))
	}
	for content(t, previous(d)) == "-" {
		add()
	}
	require.Equal(t, 21, n, "20 fit")
	assert.Equal(t, down(21, 1), numbers(t, d, 0), "over the border")
	assert.Equal(t, down(21, 17), numbers(t, d, 5))
	for range 20 {
		add()
	}
	assert.Equal(t, down(41, 21), numbers(t, d, 0), "the oldest file is gone")
	assert.Equal(t, []string{"history.jsonl", "history.jsonl.1"}, names(t, d))
}

// TestAdministrator changes files between the calls, as logrotate(8) does.
func TestAdministrator(t *testing.T) {
	leak.Check(t)
	d := open(t, t.TempDir())
	require.NoError(t, d.Append(entry{N: 1}))
	require.NoError(t, os.Rename(history(d), previous(d)))
	assert.Equal(t, []int{1}, numbers(t, d, 0))
	require.NoError(t, d.Append(entry{N: 2}))
	assert.Equal(t, []int{2, 1}, numbers(t, d, 0))
	require.NoError(t, os.Truncate(history(d), 0)) // copytruncate
	require.NoError(t, d.Append(entry{N: 3}))
	assert.Equal(t, []int{3, 1}, numbers(t, d, 0))
	require.NoError(t, os.Remove(history(d)))
	require.NoError(t, os.Remove(previous(d)))
	assert.Empty(t, numbers(t, d, 0))
	require.NoError(t, d.Append(entry{N: 4}))
	assert.Equal(t, []int{4}, numbers(t, d, 0))
	require.NoError(t, os.Link(history(d), previous(d)))
	assert.Equal(t, []int{4}, numbers(t, d, 0), "one file of two names")
	// An editor that saves by rename, and a file beyond all bounds.
	put(t, history(d)+"~", `{"n":0}`+"\n"+strings.Repeat("\n", 3*statedir.MaxHistory)+`{"n":5}`)
	require.NoError(t, os.Rename(history(d)+"~", history(d)))
	assert.Equal(t, []int{5, 4}, numbers(t, d, 0), "not all of it is read")
	require.NoError(t, d.Append(entry{N: 6}))
	assert.Equal(t, []int{6, 5}, numbers(t, d, 0), "and it has become the previous one")
}

// TestNotAFile has something else in the place of the files.
func TestNotAFile(t *testing.T) {
	for _, test := range []struct {
		name string
		make func(t *testing.T, path, victim string)
		err  error
	}{
		{"symbolic link", func(t *testing.T, path, victim string) { require.NoError(t, os.Symlink(victim, path)) }, unix.ELOOP},
		{"dangling link", func(t *testing.T, path, victim string) { require.NoError(t, os.Symlink(victim+"2", path)) }, unix.ELOOP},
		{"FIFO", func(t *testing.T, path, _ string) { require.NoError(t, unix.Mkfifo(path, 0o600)) }, unix.EINVAL},
		{"directory", func(t *testing.T, path, _ string) { require.NoError(t, os.Mkdir(path, 0o700)) }, unix.EISDIR},
	} {
		t.Run(test.name, func(t *testing.T) {
			leak.Check(t)
			d := open(t, t.TempDir())
			elsewhere := t.TempDir()
			victim := elsewhere + "/victim"
			put(t, victim, `{"n":7}`)
			test.make(t, history(d), victim)
			if test.name == "FIFO" { // with a reader, open(2) succeeds
				fifo, err := unix.Open(history(d), unix.O_RDWR|unix.O_CLOEXEC, 0)
				require.NoError(t, err)
				defer unix.Close(fifo)
			}
			require.ErrorIs(t, d.Append(entry{N: 1}), test.err)
			put(t, previous(d), `{"n":3}`)
			records, err := d.Records(0)
			require.Error(t, err)
			assert.ErrorContains(t, err, "read the history: open "+history(d))
			assert.Equal(t, []int{3}, decode(t, records), "what could be read")

			require.NoError(t, os.RemoveAll(previous(d)))
			require.NoError(t, os.Rename(history(d), previous(d)))
			require.NoError(t, d.Append(entry{N: 1}))
			records, err = d.Records(0)
			require.Error(t, err)
			assert.Equal(t, []int{1}, decode(t, records))
			assert.Equal(t, []int{1}, numbers(t, d, 1), "the other file is not needed")

			require.NoError(t, os.Mkdir(d.Path()+"/b", 0o700))
			test.make(t, d.Path()+"/b.json", victim)
			require.Error(t, d.Load("b.json", &struct{}{}))
			if test.name != "directory" {
				require.NoError(t, d.Save("b.json", 1), "it is replaced")
			} else {
				require.ErrorIs(t, d.Save("b.json", 1), unix.EISDIR)
				require.ErrorIs(t, d.Remove("b.json"), unix.EISDIR)
			}
			assert.Equal(t, `{"n":7}`, content(t, victim))
			assert.Equal(t, "-", content(t, victim+"2"))
			assert.NotContains(t, names(t, d), ".b.json.tmp")
		})
	}
}

// TestHeldLock is a process that was stopped, or frozen, while it had the lock.
func TestHeldLock(t *testing.T) {
	leak.Check(t)
	d := open(t, t.TempDir())
	d.SetMaxHistory(1000)
	release, err := d.Hold()
	require.NoError(t, err)
	d.SetPatience(time.Millisecond)

	n := 0
	for err == nil && n < 1000 {
		n++
		err = d.Append(entry{N: n, Text: text(100)})
	}
	require.ErrorIs(t, err, os.ErrDeadlineExceeded, "it cannot grow for ever")
	assert.Equal(t, down(n-1, 1), numbers(t, d, 0))
	assert.Greater(t, len(content(t, history(d))), 1800)
	assert.LessOrEqual(t, len(content(t, history(d))), 2000)
	require.ErrorIs(t, d.Save("a.json", 1), os.ErrDeadlineExceeded)
	assert.Equal(t, []string{"history.jsonl"}, names(t, d))

	release()
	require.NoError(t, d.Append(entry{N: n, Text: text(100)}))
	assert.Equal(t, down(n, 1), numbers(t, d, 0))
	require.NoError(t, d.Save("a.json", 1))
	assert.Equal(t, []string{"a.json", "history.jsonl", "history.jsonl.1"}, names(t, d))
}
