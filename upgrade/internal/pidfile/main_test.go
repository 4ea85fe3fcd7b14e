package pidfile_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/leak"
)

const (
	childEnv = "PIDFILE_TEST_CHILD" // the test that this process is there for
	dirEnv   = "PIDFILE_TEST_DIR"   // that test's directory
)

const nobody = 65534

func TestMain(m *testing.M) { leak.Main(m) }

// elsewhere runs the calling test once more, in a process of its own, with
// attr. There it returns the directory dir, and true; here false.
func elsewhere(t *testing.T, dir string, attr *syscall.SysProcAttr) (string, bool) {
	t.Helper()
	if os.Getenv(childEnv) == t.Name() {
		return os.Getenv(dirEnv), true
	}
	// The directory of the test binary is not everybody's to enter.
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), childEnv+"="+t.Name(), dirEnv+"="+dir, "GORACE=atexit_sleep_ms=0")
	cmd.Dir = "/"
	cmd.SysProcAttr = attr
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: "+t.Name())
	return "", false
}

// requireRoot skips a test that needs another user, or a mount.
func requireRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 && os.Getenv(childEnv) == "" {
		t.Skip("needs root")
	}
}

// publicDir returns a directory that all users can enter.
func publicDir(t *testing.T) string {
	t.Helper()
	if os.Getenv(childEnv) != "" {
		return ""
	}
	dir, err := os.MkdirTemp("", "pidfile")
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, os.RemoveAll(dir)) })
	require.NoError(t, os.Chmod(dir, 0o755))
	return dir
}

// put makes a file with that content.
func put(t *testing.T, path, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
}

// content returns what is in the file, or "-" if there is none.
func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return "-"
	}
	require.NoError(t, err)
	return string(b)
}

// names lists a directory, for what should not have been left in it.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	hidden, err := filepath.Glob(filepath.Join(dir, ".*"))
	require.NoError(t, err)
	var all []string
	for _, path := range append(entries, hidden...) {
		all = append(all, filepath.Base(path))
	}
	return all
}
