package doctor_test

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/units"
	"github.com/hdctl/handoff/upgrade/control"
)

func TestMain(m *testing.M) { leak.Main(m) }

// files are the files of a system by their paths. A content of "-> TARGET" is a
// symbolic link, and one of "deleted" takes a file away.
type files map[string]string

// with returns f and more.
func (f files) with(more files) files {
	all := maps.Clone(f)
	maps.Copy(all, more)
	return all
}

// root makes a directory of f.
func (f files) root(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range f {
		if content == "deleted" {
			continue
		}
		path := filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			require.NoError(t, os.Symlink(target, path))
			continue
		}
		require.NoError(t, os.WriteFile(path, []byte(content), 0o755))
	}
	return root
}

// properties are those of units, for a fake systemd; that of "" are the manager's.
type properties map[string]map[string]string

func (p properties) show(_ context.Context, unit string, _ ...string) (map[string]string, error) {
	if p == nil {
		return nil, errors.New("no systemd here")
	}
	if p[unit] == nil {
		return map[string]string{"LoadState": "not-found"}, nil
	}
	return p[unit], nil
}

var _ units.Show = properties(nil).show

// find returns the findings of a name as text, and fails the test if one has no
// hint that should.
func find(t *testing.T, checks []control.Check, name string) string {
	t.Helper()
	var found []string
	for _, c := range checks {
		require.NotEmpty(t, c.Name)
		require.NotEmpty(t, c.Message, c.Name)
		require.Contains(t, []string{control.CheckOK, control.CheckWarning, control.CheckFailed}, c.Result)
		if c.Name == name {
			found = append(found, c.Result+": "+c.Message)
		}
	}
	return strings.Join(found, "\n")
}

// bad returns all findings that are not good, as text.
func bad(checks []control.Check) []string {
	var found []string
	for _, c := range checks {
		if c.Result != control.CheckOK {
			found = append(found, c.Name+": "+c.Result+": "+c.Message)
		}
	}
	return found
}
