package upgrade

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/spawn"
)

// TestCheckContent is about the open file of a previous version of which there is no
// copy.
func TestCheckContent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app")
	require.NoError(t, os.WriteFile(path, []byte("one"), 0o700))
	sum := sha256.Sum256([]byte("one"))
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	u := &Upgrader{name: "test"}
	p := program{Program: spawn.Program{Path: path, File: f}, digest: hex.EncodeToString(sum[:]), rollback: true}

	assert.Nil(t, u.checkContent(p))
	require.NoError(t, os.Rename(path, path+".old"))
	require.NoError(t, os.WriteFile(path, []byte("two"), 0o700))
	assert.Nil(t, u.checkContent(p), "replaced by another file, which is not this one")
	assert.Nil(t, u.checkContent(program{}), "the usual path")
	assert.Nil(t, u.checkContent(program{Program: p.Program}), "it was not known what it had")

	require.NoError(t, os.WriteFile(path+".old", []byte("three"), 0o700))
	e := u.checkContent(p)
	require.NotNil(t, e)
	assert.Equal(t, control.CodeNoPrevious, e.Code)
	assert.Contains(t, e.Message, path)
	assert.NotEmpty(t, e.Hint)
}
