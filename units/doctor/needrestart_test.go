package doctor_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/units/doctor"
)

const snippetPath = "../../packaging/needrestart/handoff.conf"

// needrestart is what needrestart does with its configuration: it evaluates each file
// under strict, with %nrconf in scope, and dies of an error. Then it asks for each
// unit whether an override says something. Prints the value for each, or "-".
const needrestart = `
use strict;
use warnings FATAL => 'all';
our %nrconf = (override_rc => { qr(^dbus) => 0, qr(^mine\.service$) => 1 });
my $file = shift;
my $text = do { local (@ARGV, $/) = $file; <> };
eval $text;
die "Error parsing $file: $@" if $@;
foreach my $rc (@ARGV) {
	my $found = '-';
	foreach my $re (keys %{$nrconf{override_rc}}) {
		$found = $nrconf{override_rc}->{$re} if $rc =~ /$re/;
	}
	print "$rc $found\n";
}
`

// The snippet for needrestart keeps it from restarting services that hand off, and no
// others.
func TestNeedrestart(t *testing.T) {
	leak.Check(t)
	perl, err := exec.LookPath("perl")
	if err != nil {
		t.Skip("perl is not installed")
	}
	text, err := os.ReadFile(snippetPath)
	require.NoError(t, err)
	run, err := os.MkdirTemp("", "hd") // t.TempDir is too long for sockets
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(run) })
	for _, name := range []string{"app", "a.b-c", "mine", "dbus-broker", "blue@1"} {
		require.NoError(t, os.Mkdir(filepath.Join(run, name), 0o755))
		ln, err := net.Listen("unix", filepath.Join(run, name, "control.sock"))
		require.NoError(t, err)
		defer ln.Close()
	}
	require.NoError(t, os.Mkdir(filepath.Join(run, "stopped"), 0o755))

	ask := func(dir string, services ...string) string {
		t.Helper()
		conf := filepath.Join(t.TempDir(), "handoff.conf")
		require.Equal(t, 1, strings.Count(string(text), "'/run/handoff'"))
		require.NoError(t, os.WriteFile(conf, []byte(strings.Replace(string(text), "'/run/handoff'", "'"+dir+"'", 1)), 0o644))
		out, err := exec.CommandContext(t.Context(), perl, append([]string{"-e", needrestart, conf}, services...)...).CombinedOutput()
		require.NoError(t, err, "%s", out)
		return string(out)
	}
	services := []string{"app.service", "app2.service", "my-app.service", "a.b-c.service", "axb-c.service", "stopped.service", "dbus.service", "mine.service", "blue@1.service"}
	assert.Equal(t,
		"app.service 0\napp2.service -\nmy-app.service -\na.b-c.service 0\naxb-c.service -\nstopped.service -\ndbus.service 0\nmine.service 1\nblue@1.service 0\n",
		ask(run, services...))
	assert.Equal(t, "app.service -\ndbus.service 0\n", ask(filepath.Join(run, "none"), "app.service", "dbus.service"))
}

// The doctor knows the snippet that is shipped.
func TestShippedSnippet(t *testing.T) {
	leak.Check(t)
	text, err := os.ReadFile(snippetPath)
	require.NoError(t, err)
	root := healthy.with(files{
		"/etc/needrestart/needrestart.conf":    "$nrconf{restart} = 'a';\n",
		"/etc/needrestart/conf.d/handoff.conf": string(text),
	}).root(t)
	s := doctor.System{Root: root}
	assert.Contains(t, find(t, s.Host(t.Context()), "needrestart"), "ok: it leaves services alone")
}
