package packages

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/load"
	"github.com/hdctl/handoff/test/testbed"
)

const (
	name    = "handoff-demo"
	service = "handoff-demo.service"
	address = "127.0.0.1:8080"
)

var units = []string{"handoff-demo.socket", "handoff-demo-echo.socket", service}

// host is a system on which packages are installed.
type host struct {
	*testbed.Testbed
	t      testing.TB
	family family
}

// family is how packages are called and handled.
type family struct {
	pattern  string   // of the file of a package, with its name and version
	install  []string // a package, also over another version of it
	defaults string   // file with the administrator's settings
}

// newHost boots a system that is ready for packages.
func newHost(t testing.TB, f family) *host {
	t.Helper()
	h := &host{Testbed: testbed.Boot(t), t: t, family: f}
	// On the machine that runs the tests nothing may be started by packages, perhaps.
	h.MustRun(t, "rm", "-f", "/usr/sbin/policy-rc.d")
	// The administrator is in a hurry.
	require.NoError(t, h.Install(service+".d/test.conf",
		"[Service]\nEnvironment=HANDOFF_PROBATION=200ms HANDOFF_DRAIN_SPREAD=100ms\n"))
	return h
}

// file returns the path inside of a package.
func (h *host) file(name, version string) string {
	h.t.Helper()
	path := built.path(h.t, fmt.Sprintf(h.family.pattern, name, version))
	inside := "/tmp/" + filepath.Base(path)
	require.NoError(h.t, h.CopyFile(path, inside))
	return inside
}

// install installs a version of the demo, or upgrades or downgrades to it, which must
// succeed, and returns what was printed.
func (h *host) install(version string) string {
	h.t.Helper()
	return h.output(append(slices.Clone(h.family.install), h.file(name, version))...)
}

// output runs a command that must succeed and returns all that it printed.
func (h *host) output(args ...string) string {
	h.t.Helper()
	r := h.MustRun(h.t, args...)
	h.t.Logf("%s\n%s%s", strings.Join(args, " "), r.Stdout, r.Stderr)
	return r.Stdout + r.Stderr
}

// state is what must not change when a service is upgraded, and what does.
type state struct {
	pid        string
	invocation string
	sockets    string // when systemd opened them, and the inode of the first
}

func (h *host) state() state {
	h.t.Helper()
	unit := h.Show(service, "MainPID", "InvocationID", "NRestarts", "ActiveState", "SubState")
	require.Equal(h.t, "active running 0", unit["ActiveState"]+" "+unit["SubState"]+" "+unit["NRestarts"])
	s := state{pid: unit["MainPID"], invocation: unit["InvocationID"], sockets: h.socketOfSystemd()}
	for _, u := range units[:2] {
		socket := h.Show(u, "ActiveEnterTimestampMonotonic", "NRefused", "SubState")
		require.Equal(h.t, "running", socket["SubState"])
		s.sockets += " " + socket["ActiveEnterTimestampMonotonic"]
	}
	return s
}

// socketOfSystemd returns the inode of the socket that listens, which must be PID
// 1's.
func (h *host) socketOfSystemd() string {
	h.t.Helper()
	// proc_pid_net_tcp(5): state 0A is LISTEN, 1F90 is 8080.
	inode := strings.TrimSpace(h.MustRun(h.t, "sh", "-c", `awk '$4 == "0A" && $2 ~ /:1F90$/ { print $10 }' /proc/net/tcp`).Stdout)
	require.NotEmpty(h.t, inode)
	h.MustRun(h.t, "sh", "-c", "ls -l /proc/1/fd | grep -F 'socket:["+inode+"]'")
	return inode
}

// version returns the version that answers.
func (h *host) version() string {
	h.t.Helper()
	transport := &http.Transport{DialContext: h.Dial, DisableKeepAlives: true}
	client := http.Client{Transport: transport, Timeout: time.Minute}
	response, err := client.Get("http://" + address + "/")
	require.NoError(h.t, err)
	_, err = io.Copy(io.Discard, response.Body)
	require.NoError(h.t, err)
	require.NoError(h.t, response.Body.Close())
	return response.Header.Get("X-Handoff-Version")
}

// requireUpgraded asserts that there was an upgrade since the given state, and
// neither a restart nor a touch of the sockets.
func (h *host) requireUpgraded(before state, version string) state {
	h.t.Helper()
	now := h.state()
	require.NotEqual(h.t, before.pid, now.pid)
	require.Equal(h.t, before.invocation, now.invocation)
	require.Equal(h.t, before.sockets, now.sockets)
	require.Equal(h.t, version, h.version())
	return now
}

// requireUntouched asserts that nothing has happened since the given state.
func (h *host) requireUntouched(before state, version string) {
	h.t.Helper()
	require.Equal(h.t, before, h.state())
	require.Equal(h.t, version, h.version())
}

// active returns the state of the units.
func (h *host) active() []string {
	h.t.Helper()
	var states []string
	for _, u := range units {
		states = append(states, h.Show(u, "ActiveState")["ActiveState"])
	}
	return states
}

// requireGone asserts that the service does not run, and cannot be started.
func (h *host) requireGone() {
	h.t.Helper()
	_, err := h.Dial(context.Background(), "tcp", address)
	require.Error(h.t, err, "the port is open")
	for _, u := range units {
		unit := h.Show(u, "LoadState", "ActiveState")
		assert.Equal(h.t, "not-found inactive", unit["LoadState"]+" "+unit["ActiveState"], u)
	}
	r := h.Run(context.Background(), "sh", "-c", "ls -l /proc/[0-9]*/exe 2>/dev/null | grep handoff-demo")
	assert.Empty(h.t, r.Stdout, "processes are left")
}

// listing returns the names of all files that packages could have to do with.
func (h *host) listing() []string {
	h.t.Helper()
	files := h.MustRun(h.t, "find", "/etc", "/usr", "/var", "/run", "/opt", "/srv").Stdout
	var list []string
	for file := range strings.Lines(files) {
		if file = strings.TrimSuffix(file, "\n"); !notOurs(file) {
			list = append(list, file)
		}
	}
	slices.Sort(list)
	return list
}

// notOurs tells whether a file comes and goes without a package having to do with it.
func notOurs(file string) bool {
	for _, dir := range []string{
		"/var/lib/dpkg", "/var/lib/rpm", "/var/log", // what the package managers know
		"/var/cache/man", "/var/cache/ldconfig", // caches for all packages
		"/run/systemd", "/run/log", "/run/lock", // systemd's
		"/var/lib/private",                      // systemd's, for all services with DynamicUser=
		"/etc/systemd/system/" + service + ".d", // the administrator's
	} {
		// Only below private one would see what is left of a service.
		if file == dir || strings.HasPrefix(file, dir+"/") && dir != "/var/lib/private" {
			return true
		}
	}
	return false
}

// requireNothingLeft compares the files with those that were there before.
func (h *host) requireNothingLeft(before []string) {
	h.t.Helper()
	after := h.listing()
	assert.Empty(h.t, without(after, before), "left behind")
	assert.Empty(h.t, without(before, after), "lost")
}

// without returns what is in a, but not in b; both are sorted.
func without(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool {
		_, found := slices.BinarySearch(b, s)
		return found
	})
}

// startLoad puts a load on the service and returns when it has begun.
func (h *host) startLoad() *load.Load {
	h.t.Helper()
	o := load.Mix()
	o.Dial = func(ctx context.Context) (net.Conn, error) { return h.Dial(ctx, "tcp", address) }
	l := load.Start(context.Background(), o)
	h.t.Cleanup(func() { l.Stop() })
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	require.NoError(h.t, l.Wait(ctx, func(r load.Report) bool { return r.Total().Responses >= 50 }))
	return l
}
