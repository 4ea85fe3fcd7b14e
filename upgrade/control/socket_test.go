package control_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/control"
)

func TestSocketPaths(t *testing.T) {
	assert.Equal(t, "/run/handoff/app/control.sock", control.DefaultSocket("app"))
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/7")
	assert.Equal(t, "/run/user/7/handoff/app/control.sock", control.UserSocket("app"))
	t.Setenv("XDG_RUNTIME_DIR", "")
	assert.Regexp(t, `^/run/user/\d+/handoff/app/control\.sock$`, control.UserSocket("app"))
}

func TestServices(t *testing.T) {
	dir := shortDir(t)
	names, err := control.Services(filepath.Join(dir, "none"))
	require.NoError(t, err)
	assert.Empty(t, names)

	for _, name := range []string{"web", "app", "empty"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, name), 0o755))
		if name != "empty" {
			ln, err := net.Listen("unix", control.SocketIn(dir, name))
			require.NoError(t, err)
			defer ln.Close()
		}
	}
	require.NoError(t, os.Mkdir(filepath.Join(dir, "file"), 0o755))
	require.NoError(t, os.WriteFile(control.SocketIn(dir, "file"), nil, 0o644))
	names, err = control.Services(dir)
	require.NoError(t, err)
	assert.Equal(t, []string{"app", "web"}, names)

	_, err = control.Services(control.SocketIn(dir, "file"))
	require.ErrorContains(t, err, "not a directory")
}

func TestCheckName(t *testing.T) {
	for _, good := range []string{"app", "a", "my-app_2.0", "app@blue", "A:b"} {
		assert.NoError(t, control.CheckName(good))
	}
	for _, bad := range []string{"", ".", "..", "../x", "a/b", "-x", "@x", ".x", "a b", "a\nb", "a\x00", "ä", "a%n", `a\x2d`, strings.Repeat("a", 65)} {
		assert.Error(t, control.CheckName(bad), "%q", bad)
	}
}
