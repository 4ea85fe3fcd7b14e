package leak_test

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/hdctl/handoff/test/leak"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { leak.Main(m) }

// scenarioEnv makes TestScenario, in a child process, misbehave.
const scenarioEnv = "LEAK_TEST_SCENARIO"

// TestScenario is the only test of the children of TestMainReports:
// what it leaves behind, leak.Main has to find.
func TestScenario(t *testing.T) {
	scenario := os.Getenv(scenarioEnv)
	if scenario == "" {
		t.Skip("runs in the children of TestMainReports")
	}
	if os.Getenv(scenarioEnv+"_CHECK") != "" {
		leak.Check(t)
	}
	switch scenario {
	case "clean":
		server := httptest.NewServer(http.NotFoundHandler())
		defer server.Close()
		answer, err := http.Get(server.URL) // keeps an idle connection
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
	case "forgotten file":
		_, err := os.Open("/proc/self/status")
		require.NoError(t, err)
	case "raw descriptor":
		_, err := unix.Open("/proc/self/status", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		require.NoError(t, err)
	case "reused number":
		fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 100)
		require.NoError(t, err)
		_ = unix.Close(fd)
		status, err := unix.Open("/proc/self/status", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		require.NoError(t, err)
		require.NoError(t, unix.Dup3(status, 0, unix.O_CLOEXEC))
		require.NoError(t, unix.Close(status))
	case "listener":
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		require.NoError(t, err)
		require.NoError(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
		require.NoError(t, unix.Listen(fd, 1))
	case "epoll":
		// One is the runtime's, at most.
		for range 2 {
			_, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
			require.NoError(t, err)
		}
	case "goroutine":
		go func() { select {} }()
	case "failed":
		_, err := unix.Open("/proc/self/status", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		require.NoError(t, err)
		t.Fatal("failed on purpose")
	default:
		t.Fatalf("unknown scenario %q", scenario)
	}
}

func TestMainReports(t *testing.T) {
	tests := []struct {
		scenario string
		want     []string // on its output; none: it passes
		not      string
	}{
		{"clean", nil, "leak:"},
		{"forgotten file", nil, "leak:"},
		{"raw descriptor", []string{"leak: after ", "file descriptors are left:", "/status"}, "goroutines"},
		{"reused number", []string{"file descriptors are left:", "\t0 /proc/", "/status"}, "goroutines"},
		{"listener", []string{"socket:[", "127.0.0.1:", ", listening"}, "goroutines"},
		{"epoll", []string{"anon_inode:[eventpoll]"}, "goroutines"},
		{"goroutine", []string{"goroutines are left:", "TestScenario.func"}, "descriptors"},
		{"failed", []string{"failed on purpose"}, "leak:"},
	}
	// All children at once: they spend their time waiting for what never ends.
	type child struct {
		*exec.Cmd
		output bytes.Buffer
	}
	start := func(scenario string, env ...string) *child {
		c := &child{Cmd: exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestScenario$", "-test.count=1")}
		c.Env = append(append(os.Environ(), scenarioEnv+"="+scenario), env...)
		c.Stdout, c.Stderr = &c.output, &c.output
		require.NoError(t, c.Start())
		return c
	}
	byMain, byCheck := make([]*child, len(tests)), make([]*child, len(tests))
	for i, test := range tests {
		byMain[i] = start(test.scenario)
		byCheck[i] = start(test.scenario, scenarioEnv+"_CHECK=1")
	}

	verify := func(t *testing.T, c *child, want []string, not string) {
		err := c.Wait()
		output := c.output.String()
		assert.NotContains(t, output, not)
		if want == nil {
			require.NoError(t, err, output)
			return
		}
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit, output)
		assert.Equal(t, 1, exit.ExitCode())
		for _, text := range want {
			assert.Contains(t, output, text)
		}
	}
	for i, test := range tests {
		t.Run("Main/"+test.scenario, func(t *testing.T) { verify(t, byMain[i], test.want, test.not) })
		t.Run("Check/"+test.scenario, func(t *testing.T) {
			verify(t, byCheck[i], test.want, test.not)
			if test.want != nil {
				assert.Contains(t, byCheck[i].output.String(), "--- FAIL: TestScenario")
			}
		})
	}
}

func TestFDs(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	file, err := os.Create(name)
	require.NoError(t, err)
	want := fmt.Sprintf("%d %s", file.Fd(), name)
	assert.Contains(t, leak.FDs(), want)
	fds, err := leak.OfPID(os.Getpid())
	require.NoError(t, err)
	assert.Contains(t, fds, want)

	require.NoError(t, file.Close())
	assert.NotContains(t, leak.FDs(), want)
}

func TestOfPID(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = listener.Close() }()
	file, err := listener.(*net.TCPListener).File()
	require.NoError(t, err)
	defer func() { _ = file.Close() }()

	child := exec.Command("cat")
	child.ExtraFiles = []*os.File{file}
	stdin, err := child.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	fds, err := leak.OfPID(child.Process.Pid)
	require.NoError(t, err)
	link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", file.Fd()))
	require.NoError(t, err)
	assert.Contains(t, fds, "3 "+link)
	require.NoError(t, stdin.Close())
	require.NoError(t, child.Wait())

	_, err = leak.OfPID(child.Process.Pid)
	assert.ErrorIs(t, err, os.ErrNotExist)
}
