package packages

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestReproducible builds the same sources in another directory, where other things
// are set: the packages are the same to the last byte.
func TestReproducible(t *testing.T) {
	t.Parallel()
	built.path(t, "hdctl_"+v1+"-1_*.deb")
	tree := filepath.Join(t.TempDir(), "somewhere else")
	require.NoError(t, copyTree(tree, "../.."))
	out := t.TempDir()
	require.NoError(t, built.run(tree, out, "VERSION="+v1,
		"TZ=Asia/Tokyo", "LC_ALL=C.UTF-8", "GZIP=-1", "GOOS=plan9", "GOAMD64=v3", "GOFLAGS=-ldflags=-compressdwarf=false"))
	files, err := os.ReadDir(out)
	require.NoError(t, err)
	require.Len(t, files, 4)
	for _, file := range files {
		assert.Equal(t, sum(t, filepath.Join(built.dir, "dist", file.Name())), sum(t, filepath.Join(out, file.Name())), file.Name())
	}
}

func sum(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	hash := sha256.Sum256(content)
	return hex.EncodeToString(hash[:])
}

// copyTree copies what a build needs of a source tree, with other modes of some files.
func copyTree(to, from string) error {
	for _, name := range []string{"go.mod", "go.sum", "LICENSE", "CHANGELOG.md"} {
		content, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			return err
		}
		if err := os.MkdirAll(to, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, name), content, 0o600); err != nil {
			return err
		}
	}
	for _, name := range []string{"activation", "cmd", "packaging", "units", "upgrade"} {
		if err := os.CopyFS(filepath.Join(to, name), os.DirFS(filepath.Join(from, name))); err != nil {
			return err
		}
	}
	return nil
}
