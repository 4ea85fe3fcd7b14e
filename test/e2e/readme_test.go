package e2e

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/testbed"
	"github.com/hdctl/handoff/units"
)

// TestReadme does with the service of the README what the README says, and looks at
// it with what the README names.
func TestReadme(t *testing.T) {
	t.Parallel()
	s := &site{Testbed: testbed.Boot(t), t: t}
	require.NoError(t, s.CopyFile(binaries.path(t, "hdctl"), units.DefaultHdctl))
	require.NoError(t, s.CopyFile(binaries.path(t, "readme"), "/usr/local/bin/app"))
	generate := []string{"hdctl", "unit", "generate", "app", "--listen", "http=8080", "--exec", "/usr/local/bin/app", "--profile", "strict", "--install"}
	s.MustRun(t, generate...)
	assert.Equal(t, "hello from v1\n", s.get("/").body)
	r := s.MustRun(t, "hdctl", "doctor", "app")
	assert.NotContains(t, r.Stdout, "failed")
	assert.Empty(t, s.MustRun(t, "hdctl", "unit", "verify", "app").Stdout)
	s.MustRun(t, "hdctl", "unit", "diff", "app")

	require.NoError(t, s.CopyFile(binaries.path(t, "readme-v2"), "/usr/local/bin/app"))
	s.MustSystemctl(t, "reload", "app")
	assert.Equal(t, "hello from v2\n", s.get("/").body)
	r = s.MustRun(t, "hdctl", "status", "app")
	assert.Contains(t, r.Stdout, "app.service: serving generation 2 (v2)")
	r = s.MustRun(t, "hdctl", "upgrade", "app")
	assert.Contains(t, r.Stdout, "upgraded 2 -> 3 (v2)")
	s.MustRun(t, "hdctl", "upgrade", "--wait=drained", "app")
	assert.Contains(t, s.MustRun(t, "hdctl", "history", "app").Stdout, "confirmed")
	assert.Contains(t, s.MustRun(t, "hdctl", "metrics", "app").Stdout, `handoff_upgrades_total{outcome="confirmed",service="app"} 3`)
	assert.Contains(t, s.MustRun(t, generate...).Stdout, "unchanged")

	s.MustRun(t, "hdctl", "stop", "app")
	assert.Equal(t, "inactive", s.Show("app.service", "ActiveState")["ActiveState"])
	assert.Equal(t, "inactive", s.Show("app.socket", "ActiveState")["ActiveState"])
	assert.Equal(t, 3, s.hdctl("status", "app").ExitCode)
	s.MustSystemctl(t, "disable", "app")
	s.MustRun(t, "sh", "-c", "rm /etc/systemd/system/app.s* /usr/local/bin/app")
	s.MustSystemctl(t, "daemon-reload")
	assert.Equal(t, "not-found", s.Show("app.service", "LoadState")["LoadState"])
	assert.Empty(t, s.MustRun(t, "find", "/etc/systemd/system", "-name", "app*").Stdout)
}
