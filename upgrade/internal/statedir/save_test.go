package statedir_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/internal/statedir"
)

func TestSave(t *testing.T) {
	leak.Check(t)
	defer unix.Umask(unix.Umask(0))
	d := open(t, t.TempDir())
	path := filepath.Join(d.Path(), "pause.json")
	var e entry
	require.ErrorIs(t, d.Load("pause.json", &e), fs.ErrNotExist)
	require.NoError(t, d.Remove("pause.json"), "is not there")

	require.NoError(t, d.Save("pause.json", entry{"a", 1, "<"}))
	assert.Equal(t, "{\n  \"writer\": \"a\",\n  \"n\": 1,\n  \"text\": \"<\"\n}\n", content(t, path))
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o640), info.Mode())
	require.NoError(t, d.Load("pause.json", &e))
	assert.Equal(t, entry{"a", 1, "<"}, e)

	put(t, filepath.Join(d.Path(), ".pause.json.tmp"), "left behind by a crash")
	require.NoError(t, d.Save("pause.json", entry{N: 2}))
	e = entry{}
	require.NoError(t, d.Load("pause.json", &e))
	assert.Equal(t, entry{N: 2}, e)
	assert.Equal(t, []string{"pause.json"}, names(t, d))

	require.Error(t, d.Save("pause.json", func() {}))
	require.ErrorIs(t, d.Save("pause.json", text(1<<20)), statedir.ErrTooLarge)
	require.NoError(t, d.Load("pause.json", &e), "the old one is there")
	put(t, path, `"`+text(1<<20)+`"`)
	require.ErrorIs(t, d.Load("pause.json", new(string)), statedir.ErrTooLarge)
	put(t, path, `{"n":`)
	require.ErrorContains(t, d.Load("pause.json", &e), "load pause.json: ")
	put(t, path, "")
	require.ErrorContains(t, d.Load("pause.json", &e), "unexpected end of JSON input")

	require.NoError(t, d.Remove("pause.json"))
	assert.Empty(t, names(t, d))
}

func TestNames(t *testing.T) {
	leak.Check(t)
	d := open(t, t.TempDir())
	for _, name := range []string{
		"", ".", "..", ".hidden", "a/b", "/a", "../a", "a\x00", strings.Repeat("n", 201),
		"history.jsonl", "history.jsonl.1", "history.jsonl.2",
	} {
		assert.ErrorIs(t, d.Save(name, 1), fs.ErrInvalid, "%q", name)
		assert.ErrorIs(t, d.Load(name, new(int)), fs.ErrInvalid, "%q", name)
		assert.ErrorIs(t, d.Remove(name), fs.ErrInvalid, "%q", name)
	}
	assert.Empty(t, names(t, d))
	for _, name := range []string{"a", "pause.json", "a..b", "ä", "history.json", strings.Repeat("n", 200)} {
		assert.NoError(t, d.Save(name, 1), name)
		assert.NoError(t, d.Load(name, new(int)), name)
		assert.NoError(t, d.Remove(name), name)
	}
}

// TestSaveTogether has many write one file: it is always one of theirs.
func TestSaveTogether(t *testing.T) {
	leak.Check(t)
	path := t.TempDir()
	require.NoError(t, open(t, path).Save("a.json", entry{"0", 0, ""}))
	var writers sync.WaitGroup
	for i := range 3 {
		d := open(t, path)
		writers.Go(func() {
			for n := range 30 {
				assert.NoError(t, d.Save("a.json", entry{fmt.Sprint(i), n, text(i * 20_000)}))
				var e entry
				assert.NoError(t, d.Load("a.json", &e))
				assert.Equal(t, e.Writer, fmt.Sprint(len(e.Text)/20_000))
			}
		})
	}
	writers.Wait()
	assert.Equal(t, []string{"a.json"}, names(t, open(t, path)))
}
