package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What cannot be written leaves everything as it was.
func TestWriteUnits(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, os.WriteFile(path("b.socket"), []byte("old"), 0o600))
	require.NoError(t, os.WriteFile(path("c.socket"), []byte("same"), 0o600))
	before, err := os.Stat(path("c.socket"))
	require.NoError(t, err)
	written, err := writeUnits(dir, map[string][]byte{"a.service": []byte("new"), "b.socket": []byte("new"), "c.socket": []byte("same")})
	require.NoError(t, err)
	var results []string
	for _, f := range written {
		results = append(results, f.Result)
	}
	assert.Equal(t, []string{unitCreated, unitChanged, unitUnchanged}, results)
	after, err := os.Stat(path("c.socket"))
	require.NoError(t, err)
	assert.True(t, os.SameFile(before, after), "it is not touched")

	require.NoError(t, undoUnits(written))
	assert.NoFileExists(t, path("a.service"))
	content, err := os.ReadFile(path("b.socket"))
	require.NoError(t, err)
	assert.Equal(t, "old", string(content))

	require.ErrorContains(t, undoUnits(written), "a.service is new, and stays")

	// One that is no file.
	require.NoError(t, os.Mkdir(path("z.socket"), 0o755))
	_, err = writeUnits(dir, map[string][]byte{"a.service": []byte("new"), "z.socket": []byte("new")})
	require.ErrorContains(t, err, "z.socket")
	assert.NoFileExists(t, path("a.service"))
}
