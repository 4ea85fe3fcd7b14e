package lint_test

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/units/lint"
)

// A rule is applied to the versions of systemd that it is about.
func TestVersions(t *testing.T) {
	private := example(t, t.TempDir(), "private-pids", "bad")         // since 257
	reload := example(t, t.TempDir(), "notify-reload-version", "bad") // until 252
	for _, tt := range []struct {
		systemd         int
		private, reload bool
	}{
		{0, true, true}, // all from 252 on
		{252, false, true},
		{253, false, false},
		{256, false, false},
		{257, true, false},
		{262, true, false},
	} {
		o := lint.Options{Systemd: tt.systemd}
		assert.Equal(t, tt.private, len(lint.Check(private, o)) > 0, "PrivatePIDs=, %d", tt.systemd)
		assert.Equal(t, tt.reload, len(lint.Check(reload, o)) > 0, "notify-reload, %d", tt.systemd)
	}
}

// What is looked for beside the files that are named.
func TestLoadSite(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"app.service":       "[Unit]\nRequires=app.socket app-lost.socket\n",
		"app.socket":        "",
		"app-admin.socket":  "[Socket]\nService=app.service\n",
		"app-lost.socket":   "[Socket]\nListenStream=1\n",
		"other.socket":      "",
		"alone.socket":      "[Socket]\nService=gone.service\n",
		"app.socket.d/a.sh": "",
		"README":            "",
	} {
		file := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
	}
	for _, tt := range []struct{ named, want []string }{
		{[]string{"app.service"}, []string{"app.service", "app-admin.socket", "app-lost.socket", "app.socket"}},
		{[]string{"app.socket"}, []string{"app.socket", "app.service", "app-admin.socket", "app-lost.socket"}},
		{[]string{"app.service", "./app.socket", "app.socket"}, []string{"app.service", "app.socket", "app-admin.socket", "app-lost.socket"}},
		{[]string{"alone.socket"}, []string{"alone.socket"}},
		{[]string{""}, []string{"alone.socket", "app-admin.socket", "app-lost.socket", "app.service", "app.socket", "other.socket"}},
	} {
		var files, got []string
		for _, name := range tt.named {
			files = append(files, dir+"/"+name)
		}
		units, err := lint.LoadSite(files...)
		require.NoError(t, err)
		for _, u := range units {
			got = append(got, u.Name)
		}
		assert.Equal(t, tt.want, got, "%q", tt.named)
	}
	// Units beside it that are masked, or cannot be read, are none of its business.
	require.NoError(t, os.Symlink(os.DevNull, filepath.Join(dir, "masked.socket")))
	require.NoError(t, os.Symlink("nowhere", filepath.Join(dir, "broken.socket")))
	list, err := lint.LoadSite(dir + "/app.service")
	require.NoError(t, err)
	assert.Len(t, list, 4)
	require.NoError(t, os.Remove(filepath.Join(dir, "broken.socket")))
	list, err = lint.LoadSite(dir)
	require.NoError(t, err)
	assert.Len(t, list, 6)
	_, err = lint.LoadSite(filepath.Join(dir, "README"))
	assert.ErrorContains(t, err, "neither a .service nor a .socket")
	_, err = lint.LoadSite(filepath.Join(dir, "nothing.service"))
	assert.ErrorIs(t, err, os.ErrNotExist)
}

// A service can need a socket that is not its own, programs can do what is not known
// here, and values can come from elsewhere: nothing of that is a mistake.
func TestNotAsserted(t *testing.T) {
	load := func(change func(service string) string) []lint.Finding {
		dir := t.TempDir()
		for _, name := range []string{"app.service", "app.socket"} {
			text, err := os.ReadFile(filepath.Join("testdata", "base", name))
			require.NoError(t, err)
			if name == "app.service" {
				text = []byte(change(string(text)))
			}
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), text, 0o644))
		}
		require.NoError(t, os.WriteFile(filepath.Join(dir, "docker.socket"), []byte("[Socket]\nListenStream=/run/docker.sock\n"), 0o644))
		units, err := lint.LoadSite(filepath.Join(dir, "app.service"))
		require.NoError(t, err)
		return lint.Check(units, lint.Options{})
	}
	replace := func(pairs ...string) func(string) string { return strings.NewReplacer(pairs...).Replace }
	assert.Empty(t, load(replace("Requires=app.socket", "Requires=app.socket docker.socket")))
	assert.Empty(t, load(replace("ExecReload=/usr/bin/hdctl upgrade --queue app", "ExecReload=/usr/lib/app/reload")))
	assert.Empty(t, load(replace("ExecStop=/usr/bin/hdctl exec-stop", "ExecStop=/usr/lib/app/stop")))
	assert.Empty(t, load(replace("ExecStart=/usr/bin/app", "ExecStart=/bin/bash -c '/usr/bin/app -v'")))
	assert.Len(t, load(replace("ExecStart=/usr/bin/app", "ExecStart=/bin/bash -c 'cd /; /usr/bin/app'")), 1)
	assert.Empty(t, load(replace("[Service]", "[Service]\nSystemCallFilter=@system-service\nSystemCallFilter=~@process\nSystemCallFilter=@process")))

	findings := load(replace("[Service]", "[Service]\nTimeoutStopSec=5s\nEnvironmentFile=-/etc/default/app"))
	require.Len(t, findings, 1)
	assert.Contains(t, findings[0].Message, ", unless EnvironmentFile= or PassEnvironment= sets HANDOFF_STOP_TIMEOUT")
}

// The files of an installed service are those that systemd names.
func TestLoadInstalled(t *testing.T) {
	dir := t.TempDir()
	files := map[string]string{
		"lib/app.service": "[Unit]\nRequires=docker.socket\n[Service]\nKillMode=mixed\n", "lib/docker.socket": "", "etc/b.conf": "[Service]\nKillMode=control-group\n", "etc/a b.conf": "[Service]\nUser=a\n",
		"lib/x.socket": "[Socket]\nService=app.service\n",
	}
	for name, text := range files {
		file := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
	}
	systemd := map[string]map[string]string{
		"app.service": {
			"FragmentPath": dir + "/lib/app.service", "DropInPaths": `"` + dir + `/etc/a b.conf" ` + dir + "/etc/b.conf",
			"TriggeredBy": "x.socket app.timer gone.socket",
		},
		"x.socket":      {"FragmentPath": dir + "/lib/x.socket"},
		"docker.socket": {"FragmentPath": dir + "/lib/docker.socket"}, // of another service
	}
	var asked []string
	show := func(_ context.Context, unit string, _ ...string) (map[string]string, error) {
		asked = append(asked, unit)
		return maps.Clone(systemd[unit]), nil
	}
	units, err := lint.LoadInstalled(t.Context(), "app", show)
	require.NoError(t, err)
	assert.Equal(t, []string{"app.service", "docker.socket", "x.socket", "gone.socket"}, asked)
	require.Len(t, units, 2)
	assert.Equal(t, []string{dir + "/lib/app.service", dir + "/etc/a b.conf", dir + "/etc/b.conf"}, units[0].Files)
	assert.False(t, slices.ContainsFunc(lint.Check(units, lint.Options{}), func(f lint.Finding) bool { return f.Rule == "kill-mode" }))

	_, err = lint.LoadInstalled(t.Context(), "other.service", show)
	assert.ErrorIs(t, err, lint.ErrNoUnit)
	_, err = lint.LoadInstalled(t.Context(), "app", func(context.Context, string, ...string) (map[string]string, error) { return nil, os.ErrPermission })
	assert.ErrorIs(t, err, os.ErrPermission)
}
