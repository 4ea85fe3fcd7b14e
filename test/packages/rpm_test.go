package packages

import (
	"context"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/hdctl/handoff/test/testbed"
)

// On Debian rpm wants to be asked twice. None of the packages that ours depend on,
// such as the shell, are RPMs there.
var fedora = family{
	pattern:  "%s-%s-1.*.rpm",
	install:  []string{"rpm", "--force-debian", "--nodeps", "--oldpackage", "--replacepkgs", "-U"},
	defaults: "/etc/sysconfig/handoff-demo",
}

func TestRPMPackage(t *testing.T) {
	t.Parallel()
	h := newHost(t, fedora)
	if os.Getenv(testbed.RootfsEnv) != "" && h.Run(context.Background(), "rpm", "--version").ExitCode != 0 {
		t.Skip("the other root file system has no rpm")
	}
	h.MustRun(t, "rpm", "--initdb")
	// Of packages that Fedora always has.
	h.MustRun(t, "mkdir", "-p", "/etc/sysconfig", "/usr/share/licenses", "/usr/share/zsh/site-functions")
	files := h.listing()

	h.step("install", func(t *testing.T) {
		h.output(append(h.family.install, h.file("hdctl", v1), h.file(name, v1))...)
		// Enabled or not is up to the distribution's presets, and nothing is started.
		assert.Equal(t, []string{"inactive", "inactive", "inactive"}, h.active())
		h.MustSystemctl(t, append([]string{"is-enabled"}, units...)...)
		h.MustSystemctl(t, append([]string{"start"}, units...)...)
		h.state()
		assert.Equal(t, v1, h.version())
	})
	h.upgrades()
	h.step("remove", func(t *testing.T) {
		h.output("rpm", "--force-debian", "-e", name, "hdctl")
		h.requireGone()
		h.requireNothingLeft(files)
	})
}
