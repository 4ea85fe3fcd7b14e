package testbed_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hdctl/handoff/test/testbed"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func testFiles(t *testing.T, tb *testbed.Testbed) {
	const name = "/opt/some/where/file"
	require.NoError(t, tb.WriteFile(name, []byte("one"), 0o640))
	content, err := tb.ReadFile(name)
	require.NoError(t, err)
	assert.Equal(t, "one", string(content))
	assert.Equal(t, "640 root\n", tb.MustRun(t, "stat", "--format=%a %U", name).Stdout)
	assert.NoFileExists(t, name, "on the host")

	// What exists is replaced, not changed, and nothing else is left there.
	tb.MustRun(t, "ln", name, name+".old")
	require.NoError(t, tb.WriteFile(name, []byte("two"), 0o600))
	assert.Equal(t, "onetwo", tb.MustRun(t, "cat", name+".old", name).Stdout)
	assert.Equal(t, "file\nfile.old\n", tb.MustRun(t, "ls", "-A", filepath.Dir(name)).Stdout)

	_, err = tb.ReadFile("/no/such/file")
	assert.ErrorIs(t, err, os.ErrNotExist)
	assert.ErrorContains(t, tb.WriteFile(name+"/below", nil, 0o600), "write "+name+"/below")
}

// Absolute links lead to where they lead inside.
func testLinks(t *testing.T, tb *testbed.Testbed) {
	base := fmt.Sprintf("handoff-testbed-link-%d", os.Getpid())
	tb.MustRun(t, "ln", "-s", "/run", "/opt/link")
	require.NoError(t, tb.WriteFile("/opt/link/"+base, []byte("inside"), 0o600))
	assert.NoFileExists(t, filepath.Join("/run", base), "on the host")
	assert.Equal(t, "inside", tb.MustRun(t, "cat", "/run/"+base).Stdout)
	content, err := tb.ReadFile("/opt/link/" + base)
	require.NoError(t, err)
	assert.Equal(t, "inside", string(content))
}

// A program that runs can be replaced, as a package manager does it.
func testCopyFile(t *testing.T, tb *testbed.Testbed) {
	const program = "/usr/local/bin/program"
	sleep, err := filepath.EvalSymlinks("/bin/sleep")
	require.NoError(t, err)
	require.NoError(t, tb.CopyFile(sleep, program))
	require.NoError(t, tb.Install("program.service", "[Service]\nExecStart="+program+" infinity\n"))
	tb.MustSystemctl(t, "start", "program.service")
	exe := fmt.Sprintf("/proc/%d/exe", tb.MainPID("program.service"))
	tb.WaitFor(t, "the program to run", func() bool {
		return strings.TrimSpace(tb.MustRun(t, "readlink", exe).Stdout) == program
	})

	require.NoError(t, tb.CopyFile(sleep, program))
	assert.Equal(t, program+" (deleted)\n", tb.MustRun(t, "readlink", exe).Stdout)
	assert.Equal(t, "active\n", tb.MustSystemctl(t, "is-active", "program.service").Stdout)
	tb.MustSystemctl(t, "restart", "program.service")

	assert.ErrorIs(t, tb.CopyFile("/no/such/file", program), os.ErrNotExist)
}

func testShare(t *testing.T, tb *testbed.Testbed) {
	require.NoError(t, os.WriteFile(filepath.Join(tb.Share(), "from-host"), []byte("hello"), 0o644))
	assert.Equal(t, "hello", tb.MustRun(t, "cat", "/share/from-host").Stdout)
	tb.MustRun(t, "setpriv", "--reuid=65534", "touch", "/share/from-inside")
	assert.FileExists(t, filepath.Join(tb.Share(), "from-inside"))
}

// What a testbed could change of the machine, it cannot.
func testReadOnlySys(t *testing.T, tb *testbed.Testbed) {
	for _, name := range []string{"/proc/sys/fs/file-max", "/proc/sys/kernel/panic", "/sys/kernel/mm/transparent_hugepage/enabled"} {
		// What is there already: if it can be written, no harm is done.
		r := tb.Run(t.Context(), "sh", "-c", "v=$(cat "+name+"); echo \"$v\" >"+name)
		assert.Contains(t, r.Stderr, "Read-only file system", name)
	}
	// While the network's part is its own.
	tb.MustRun(t, "sh", "-c", "echo 100 >/proc/sys/net/core/somaxconn")
	host, err := os.ReadFile("/proc/sys/net/core/somaxconn")
	require.NoError(t, err)
	assert.NotEqual(t, "100\n", string(host))
}
