package testbed_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/test/testbed"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Two testbeds know nothing of each other: the same port, the same units.
func TestParallel(t *testing.T) {
	names := make(chan string, 2)
	meet := make(chan struct{}) // both are up at the same time
	for _, name := range []string{"one", "two"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tb := testbed.Boot(t)
			startEcho(t, tb)
			names <- tb.Directory()
			if len(names) == cap(names) {
				close(meet)
			}
			select {
			case <-meet:
			case <-t.Context().Done():
			}
			conn, err := tb.Dial(t.Context(), "tcp", "127.0.0.1:7007")
			require.NoError(t, err)
			echo(t, conn)
			units, err := tb.Journal("--unit=echo@*", "_PID=1")
			require.NoError(t, err)
			assert.NotEmpty(t, units)
			assert.Equal(t, "/init.scope", tb.Show("init.scope", "ControlGroup")["ControlGroup"])
		})
	}
}

// Nothing leaks when it all ends as it should, and the process is as before.
func TestStart(t *testing.T) {
	if err := testbed.Available(); err != nil {
		testbed.Boot(t) // skips or fails
	}
	leak.Check(t)
	before := namespaces(t)
	fileMax, err := os.ReadFile("/proc/sys/fs/file-max")
	require.NoError(t, err)
	started := time.Now()
	tb, err := testbed.Start(t.Context(), testbed.Options{ManagerConf: "DefaultTimeoutStartSec=7s\n"})
	require.NoError(t, err)
	booted := time.Now()
	assert.Equal(t, "testbed", tb.Name())
	assert.Contains(t, tb.MustSystemctl(t, "show", "--property=DefaultTimeoutStartUSec").Stdout, "=7s\n")
	stopping := time.Now()
	require.NoError(t, tb.Stop())
	t.Logf("boot %v, stop %v", booted.Sub(started).Round(time.Millisecond), time.Since(stopping).Round(time.Millisecond))

	assert.Equal(t, before, namespaces(t))
	after, err := os.ReadFile("/proc/sys/fs/file-max")
	require.NoError(t, err)
	assert.Equal(t, string(fileMax), string(after))
}

// namespaces returns those of the main thread.
func namespaces(t *testing.T) map[string]string {
	links, err := filepath.Glob("/proc/self/ns/*")
	require.NoError(t, err)
	require.NotEmpty(t, links)
	all := make(map[string]string)
	for _, link := range links {
		all[link], err = os.Readlink(link)
		require.NoError(t, err)
	}
	return all
}

func TestStartFails(t *testing.T) {
	if err := testbed.Available(); err != nil {
		testbed.Boot(t) // skips or fails
	}
	t.Setenv("TMPDIR", t.TempDir())
	t.Run("no systemd", func(t *testing.T) {
		_, err := testbed.Start(t.Context(), testbed.Options{Rootfs: t.TempDir()})
		assert.ErrorContains(t, err, "testbed: not available: no systemd in ")
	})
	t.Run("nothing to run", func(t *testing.T) {
		leak.Check(t)
		_, err := testbed.Start(t.Context(), testbed.Options{Rootfs: rootfs(t, os.DevNull)})
		assert.ErrorContains(t, err, "testbed: start PID 1: fork/exec /bin/sh: exec format error")
	})
	t.Run("bad name", func(t *testing.T) {
		leak.Check(t)
		bad := filepath.Join(t.TempDir(), "a:b")
		require.NoError(t, os.Rename(rootfs(t, os.DevNull), bad))
		_, err := testbed.Start(t.Context(), testbed.Options{Rootfs: bad})
		assert.ErrorContains(t, err, "overlayfs")
	})
	t.Run("PID 1 exits", func(t *testing.T) {
		leak.Check(t)
		var console bytes.Buffer
		_, err := testbed.Start(t.Context(), testbed.Options{Rootfs: rootfs(t, "/bin/sh"), Console: &console})
		assert.ErrorContains(t, err, "PID 1 exited: exit status 127")
		assert.ErrorContains(t, err, "mount: not found")
		assert.Contains(t, console.String(), "mount: not found")
	})
	t.Run("context", func(t *testing.T) {
		leak.Check(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(assert.AnError)
		_, err := testbed.Start(ctx, testbed.Options{})
		assert.ErrorIs(t, err, assert.AnError)
	})
	left, err := filepath.Glob(filepath.Join(os.TempDir(), "*"))
	require.NoError(t, err)
	assert.Empty(t, left)
}

// rootfs makes a root file system of a shell with the libraries that it needs,
// and a systemd that is never run.
func rootfs(t *testing.T, shell string) string {
	dir := t.TempDir()
	install := func(source, name string) {
		content, err := os.ReadFile(source)
		require.NoError(t, err)
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), content, 0o755))
	}
	install(os.DevNull, "/usr/lib/systemd/systemd")
	install(shell, "/bin/sh")
	libraries, _ := exec.Command("ldd", shell).Output() // none, if it fails
	for _, field := range strings.Fields(string(libraries)) {
		if filepath.IsAbs(field) {
			install(field, field)
		}
	}
	return dir
}

// recorder is a test that may fail or be skipped without consequences.
type recorder struct {
	testing.TB
	skipped, failed string
}

func (r *recorder) Helper()                           {}
func (r *recorder) Skipf(format string, args ...any)  { r.skipped = format; runtime.Goexit() }
func (r *recorder) Fatalf(format string, args ...any) { r.failed = format; runtime.Goexit() }

// Where no testbed can boot tests are skipped, but not where they must run.
func TestBootSkipsOrFails(t *testing.T) {
	for _, test := range []struct {
		ci, require string
		fails       bool
	}{
		{"", "", false},
		{"false", "0", false},
		{"true", "", true},
		{"", "1", true},
	} {
		t.Setenv("CI", test.ci)
		t.Setenv(testbed.RequireEnv, test.require)
		r := &recorder{TB: t}
		done := make(chan struct{})
		go func() {
			defer close(done)
			testbed.Boot(r, testbed.Options{Rootfs: t.TempDir()})
		}()
		<-done
		assert.Equal(t, test.fails, r.failed != "", "%+v", test)
		assert.Equal(t, !test.fails, r.skipped != "", "%+v", test)
	}
}

func BenchmarkBoot(b *testing.B) {
	for b.Loop() {
		tb, err := testbed.Start(b.Context(), testbed.Options{})
		require.NoError(b, err)
		b.StopTimer()
		require.NoError(b, tb.Stop())
		b.StartTimer()
	}
}

func BenchmarkStop(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		tb, err := testbed.Start(b.Context(), testbed.Options{})
		require.NoError(b, err)
		b.StartTimer()
		require.NoError(b, tb.Stop())
	}
}

// A new connection costs a thread two changes of its network namespace.
func BenchmarkDial(b *testing.B) {
	tb := testbed.Boot(b)
	require.NoError(b, tb.InstallUnits(map[string]string{
		"sink.socket":  "[Socket]\nListenStream=127.0.0.1:7009\nBacklog=1000000\n",
		"sink.service": "[Service]\nExecStart=/bin/sleep infinity\n",
	}))
	tb.MustSystemctl(b, "start", "sink.socket")
	tb.MustRun(b, "sh", "-c", "echo 1000000 >/proc/sys/net/core/somaxconn")
	for b.Loop() {
		conn, err := tb.Dial(b.Context(), "tcp", "127.0.0.1:7009")
		require.NoError(b, err)
		_ = conn.Close()
	}
}

func BenchmarkRun(b *testing.B) {
	tb := testbed.Boot(b)
	for b.Loop() {
		require.NoError(b, tb.Run(b.Context(), "true").Err())
	}
}
