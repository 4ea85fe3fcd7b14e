package packages

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var debian = family{
	pattern:  "%s_%s-1_*.deb",
	install:  []string{"dpkg", "--force-unsafe-io", "--force-downgrade", "-i"},
	defaults: "/etc/default/handoff-demo",
}

func TestDebianPackage(t *testing.T) {
	t.Parallel()
	h := newHost(t, debian)
	files := h.listing()

	h.step("install", func(t *testing.T) {
		// Without the trigger of man-db, which reads all pages of the system.
		h.output("dpkg", "--force-unsafe-io", "--no-triggers", "-i", h.file("hdctl", v1), h.file(name, v1))
		h.state()
		assert.Equal(t, []string{"active", "active", "active"}, h.active())
		assert.Equal(t, v1, h.version())
		h.MustSystemctl(t, append([]string{"is-enabled"}, units...)...)
		h.MustRun(t, "sh", "-c", "man --where hdctl || test -e /usr/share/man/man1/hdctl.1.gz")
		assert.Contains(t, h.output("hdctl", "--version"), v1)
	})
	h.upgrades()
	h.step("policy-rc.d forbids", func(t *testing.T) {
		require.NoError(t, h.WriteFile("/usr/sbin/policy-rc.d", []byte("#!/bin/sh\nexit 101\n"), 0o755))
		before := h.state()
		assert.Contains(t, h.install(v1), "policy-rc.d returned 101")
		h.requireUntouched(before, v2)
		h.MustRun(t, "rm", "/usr/sbin/policy-rc.d")
		h.MustRun(t, "dpkg-reconfigure", name) // or: systemctl reload
		h.requireUpgraded(before, v1)
	})
	h.step("remove and install again", func(t *testing.T) {
		h.output("dpkg", "-r", name)
		h.requireGone()
		h.install(v2)
		assert.Equal(t, []string{"active", "active", "active"}, h.active())
		assert.Equal(t, v2, h.version())
	})
	h.step("purge", func(t *testing.T) {
		h.output("dpkg", "--no-triggers", "-P", name, "hdctl")
		h.requireGone()
		h.requireNothingLeft(files)
	})
}
