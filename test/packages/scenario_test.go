package packages

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// run runs a step of a scenario. Each goes on from where the one before has ended, so
// the first that fails is the last.
func (h *host) step(name string, f func(t *testing.T)) {
	h.t.Helper()
	t := h.t.(*testing.T)
	ok := t.Run(name, func(t *testing.T) {
		outer := h.t
		defer func() { h.t = outer }()
		h.t = t
		f(t)
	})
	if !ok {
		t.FailNow()
	}
}

// upgrades is what an administrator sees of packages while the service is installed.
// It begins with version 1, which serves, and ends with version 2.
func (h *host) upgrades() {
	h.step("upgrade, broken version and downgrade under load", func(t *testing.T) {
		l := h.startLoad()
		before := h.state()
		assert.NotContains(t, h.install(v2), name+":")
		second := h.requireUpgraded(before, v2)

		output := h.install(broken)
		assert.Contains(t, output, "the new version did not take over")
		assert.Contains(t, output, "exit status 3")
		assert.Contains(t, output, "open /etc/demo/database.toml: no such file or directory") // its last words
		assert.Contains(t, output, "the version that ran before goes on serving")
		h.requireUntouched(second, v2)
		status := h.output("hdctl", "status", name)
		assert.Contains(t, status, "upgrade FAILED")
		assert.Contains(t, status, "a restart would start it")

		assert.NotContains(t, h.install(v1), name+":")
		h.requireUpgraded(second, v1)
		report := l.Stop()
		t.Logf("%v", report)
		require.NoError(t, report.Err())
		require.Equal(t, report.Total().Requests, report.Total().Responses)
	})

	h.step("the administrator's switch", func(t *testing.T) {
		file, err := h.ReadFile(h.family.defaults)
		require.NoError(t, err)
		for _, tt := range []struct{ line, says string }{
			{"HANDOFF_PACKAGE_UPGRADE=manual", "HANDOFF_PACKAGE_UPGRADE=manual"},
			{`  HANDOFF_PACKAGE_UPGRADE = "manual" `, "HANDOFF_PACKAGE_UPGRADE=manual"},
			{"HANDOFF_PACKAGE_UPGRADE=no $(touch /tmp/run)", "neither auto nor manual"},
		} {
			require.NoError(t, h.WriteFile(h.family.defaults, append([]byte("A=two words\n"), tt.line...), 0o644))
			before := h.state()
			output := h.install(v2)
			assert.Contains(t, output, tt.says)
			assert.Contains(t, output, "systemctl reload "+service)
			h.requireUntouched(before, v1)
		}
		_, err = h.ReadFile("/tmp/run")
		require.Error(t, err, "the file was run")
		require.NoError(t, h.WriteFile(h.family.defaults, file, 0o644))
		before := h.state()
		h.MustSystemctl(t, "reload", service)
		h.requireUpgraded(before, v2)
	})

	h.step("a unit has changed", func(t *testing.T) {
		edit := func(unit, expression string) {
			h.MustRun(t, "sed", "-i", expression, "/usr/lib/systemd/system/"+unit)
			h.MustSystemctl(t, "daemon-reload")
		}
		// As if the version that is installed had come with other units.
		edit(service, "s/^RestartSec=.*/RestartSec=2s/; s/^# .*/# Other words./")
		before := h.state()
		output := h.install(v1)
		assert.Contains(t, output, service+" has changed")
		assert.Contains(t, output, "systemctl restart "+service)
		before = h.requireUpgraded(before, v1)

		edit("handoff-demo-echo.socket", "s/^Backlog=.*/Backlog=100/")
		output = h.install(v2)
		assert.Contains(t, output, "handoff-demo-echo.socket has changed, and is left open as it was")
		before = h.requireUpgraded(before, v2)

		edit(service, "s/^# .*/# Other words./") // only for people
		assert.NotContains(t, h.install(v1), name+":")
		h.requireUpgraded(before, v1)
	})

	h.step("the service does not answer", func(t *testing.T) {
		h.MustRun(t, "mv", "/run/handoff/handoff-demo/control.sock", "/run/handoff/handoff-demo/away")
		before := h.state()
		output := h.install(v2)
		assert.Contains(t, output, "does not answer hdctl")
		assert.Contains(t, output, "systemctl restart "+service)
		h.requireUntouched(before, v1)
		h.MustRun(t, "mv", "/run/handoff/handoff-demo/away", "/run/handoff/handoff-demo/control.sock")
		assert.Empty(t, h.Systemctl("reload", service).Err())
		h.requireUpgraded(before, v2)
	})

	h.step("upgrades are paused", func(t *testing.T) {
		h.MustRun(t, "hdctl", "pause", name, "--reason", "not tonight")
		before := h.state()
		output := h.install(v1)
		assert.Contains(t, output, "upgrades are paused")
		assert.Contains(t, output, "not tonight")
		assert.Contains(t, output, "hdctl resume "+name)
		h.requireUntouched(before, v2)
		h.MustRun(t, "hdctl", "resume", name)
	})

	h.step("masked, or without hdctl", func(t *testing.T) {
		before := h.state()
		h.MustSystemctl(t, "mask", service)
		assert.Contains(t, h.install(v1), "systemctl unmask "+service+" && systemctl reload "+service)
		h.MustSystemctl(t, "unmask", service)
		h.MustRun(t, "mv", "/usr/bin/hdctl", "/usr/bin/away")
		assert.Contains(t, h.install(v1), "hdctl is not installed")
		h.MustRun(t, "mv", "/usr/bin/away", "/usr/bin/hdctl")
		h.requireUntouched(before, v2)
	})

	h.step("no systemd", func(t *testing.T) {
		before := h.state()
		args := append([]string{"unshare", "--mount", "sh", "-c", `mount -t tmpfs tmpfs /run && "$@"`, "sh"}, h.family.install...)
		assert.NotContains(t, h.output(append(args, h.file(name, v1))...), name+":")
		h.requireUntouched(before, v2)
	})

	h.step("stopped", func(t *testing.T) {
		h.MustSystemctl(t, append([]string{"stop"}, units...)...)
		assert.NotContains(t, h.install(v2), name+":")
		assert.Equal(t, []string{"inactive", "inactive", "inactive"}, h.active())
		h.MustSystemctl(t, append([]string{"start"}, units...)...)
		assert.Equal(t, v2, h.version())
	})
}
