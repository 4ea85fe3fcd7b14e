package preflight_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/preflight"
)

// modeEnv makes the test binary a check command.
const modeEnv = "PREFLIGHT_TEST_MODE"

func TestMain(m *testing.M) {
	switch os.Getenv(modeEnv) {
	case "":
		if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-test.") {
			// Started by a test that has lost its mode: never run the tests again,
			// which would do the same.
			panic(fmt.Sprintf("no mode for %q", os.Args))
		}
		leak.Main(m)
	case "report": // what it was started with
		fds, _ := filepath.Glob("/proc/self/fd/*")
		for _, fd := range fds {
			if target, err := os.Readlink(fd); err == nil && !strings.HasPrefix(target, "anon_inode:") {
				fmt.Printf("fd %s %s\n", filepath.Base(fd), target)
			}
		}
		for _, env := range os.Environ() {
			fmt.Println("env", env)
		}
		fmt.Printf("args %q\n", os.Args[1:])
	case "hang": // with a process that would go on
		helper := exec.Command("/bin/sleep", "1000")
		if err := helper.Start(); err != nil {
			panic(err)
		}
		fmt.Println("helper", helper.Process.Pid)
		if err := os.WriteFile(os.Args[1], []byte(strconv.Itoa(helper.Process.Pid)), 0o600); err != nil {
			panic(err)
		}
		select {}
	}
}

// program writes a file and returns its path.
func program(t testing.TB, name string, content []byte, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, content, mode))
	return path
}

// self returns a copy of the program that runs here.
func self(t testing.TB) []byte {
	t.Helper()
	content, err := os.ReadFile("/proc/self/exe")
	require.NoError(t, err)
	return content
}

// find returns the finding of that name, which must be there once.
func find(t testing.TB, checks []control.Check, name string) control.Check {
	t.Helper()
	var found []control.Check
	for _, c := range checks {
		if c.Name == name {
			found = append(found, c)
		}
	}
	require.Len(t, found, 1, "%s in %+v", name, checks)
	return found[0]
}

// names of the findings.
func names(checks []control.Check) []string {
	var names []string
	for _, c := range checks {
		names = append(names, c.Name)
	}
	return names
}

// run runs the checks on this machine.
func run(t testing.TB, c preflight.Config) []control.Check {
	t.Helper()
	return preflight.Run(t.Context(), c)
}
