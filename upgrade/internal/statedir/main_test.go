package statedir_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/internal/statedir"
)

const (
	childEnv  = "STATEDIR_TEST_CHILD"  // the test that this process is there for
	dirEnv    = "STATEDIR_TEST_DIR"    // that test's directory
	writerEnv = "STATEDIR_TEST_WRITER" // what kind of a writer this process is instead of a test
)

const nobody = 65534

func TestMain(m *testing.M) {
	if kind := os.Getenv(writerEnv); kind != "" {
		if err := write(kind); err != nil {
			fmt.Fprintln(os.Stderr, "writer:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	leak.Main(m)
}

// entry is what the tests append.
type entry struct {
	Writer string `json:"writer"`
	N      int    `json:"n"`
	Text   string `json:"text,omitempty"`
}

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
	dir, err := os.MkdirTemp("", "statedir")
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, os.RemoveAll(dir)) })
	require.NoError(t, os.Chmod(dir, 0o755))
	return dir
}

func open(t *testing.T, path string) *statedir.Dir {
	t.Helper()
	d, err := statedir.Open(path)
	require.NoError(t, err)
	return d
}

func put(t *testing.T, path, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(content), 0o640))
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

func history(d *statedir.Dir) string  { return filepath.Join(d.Path(), "history.jsonl") }
func previous(d *statedir.Dir) string { return filepath.Join(d.Path(), "history.jsonl.1") }

// names lists the directory, for what should not have been left in it.
func names(t *testing.T, d *statedir.Dir) []string {
	t.Helper()
	entries, err := os.ReadDir(d.Path())
	require.NoError(t, err)
	all := []string{}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// numbers returns N of the newest records, the newest first.
func numbers(t *testing.T, d *statedir.Dir, limit int) []int {
	t.Helper()
	records, err := d.Records(limit)
	require.NoError(t, err)
	return decode(t, records)
}

func decode(t *testing.T, records []json.RawMessage) []int {
	t.Helper()
	all := []int{}
	for _, r := range records {
		var e entry
		require.NoError(t, json.Unmarshal(r, &e))
		all = append(all, e.N)
	}
	return all
}

// down returns from, from-1, ..., to.
func down(from, to int) []int {
	all := []int{}
	for n := from; n >= to; n-- {
		all = append(all, n)
	}
	return all
}

// text returns a text of n bytes.
func text(n int) string { return strings.Repeat("0123456789", n/10+1)[:n] }
