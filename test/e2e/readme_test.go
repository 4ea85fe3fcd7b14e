package e2e

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/testbed"
	"github.com/hdctl/handoff/units"
)

// TestReadme does with the service of the README what the README says.
func TestReadme(t *testing.T) {
	s := &site{Testbed: testbed.Boot(t), t: t}
	require.NoError(t, s.CopyFile(binaries.path(t, "hdctl"), units.DefaultHdctl))
	require.NoError(t, s.CopyFile(binaries.path(t, "readme"), "/usr/local/bin/app"))
	s.MustRun(t, "hdctl", "unit", "generate", "app", "--listen", "http=8080", "--exec", "/usr/local/bin/app", "--output", "/etc/systemd/system")
	s.MustSystemctl(t, "daemon-reload")
	s.MustSystemctl(t, "enable", "--now", "app.socket", "app.service")
	assert.Equal(t, "hello from v1\n", s.get("/").body)

	require.NoError(t, s.CopyFile(binaries.path(t, "readme"), "/usr/local/bin/app"))
	s.MustSystemctl(t, "reload", "app")
	r := s.MustRun(t, "hdctl", "upgrade", "app")
	assert.Contains(t, r.Stdout, "upgraded 2 -> 3 (v1)")
	r = s.MustRun(t, "hdctl", "status", "app")
	assert.Contains(t, r.Stdout, "app.service: serving generation 3 (v1)")
	s.MustRun(t, "hdctl", "upgrade", "--wait=drained", "app")
	s.MustSystemctl(t, "stop", "app.socket", "app.service")
	assert.Equal(t, "inactive", s.Show("app.service", "ActiveState")["ActiveState"])
	assert.Equal(t, 3, s.hdctl("status", "app").ExitCode)
}
