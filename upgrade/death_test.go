package upgrade

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestCauseOfDeath(t *testing.T) {
	for script, want := range map[string]string{
		"exit 0": "exit status 0", "exit 3": "exit status 3", "kill -9 $$": "killed by SIGKILL",
	} {
		cmd := exec.Command("sh", "-c", "read x; "+script)
		in, err := cmd.StdinPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		fd, err := unix.PidfdOpen(cmd.Process.Pid, unix.PIDFD_NONBLOCK)
		require.NoError(t, err)
		pidfd := os.NewFile(uintptr(fd), "pidfd")
		require.NoError(t, in.Close())
		require.NoError(t, awaitDeath(pidfd))
		waited := make(chan error, 1)
		go func() { waited <- cmd.Wait() }() // only then the kernel tells
		if !kernelIsAtLeast(t, 6, 15) {
			want = ""
		}
		assert.Equal(t, want, causeOfDeath(pidfd, deathWait))
		<-waited
		require.NoError(t, pidfd.Close())
	}
}

func kernelIsAtLeast(t *testing.T, major, minor int) bool {
	t.Helper()
	var u unix.Utsname
	require.NoError(t, unix.Uname(&u))
	var a, b int
	_, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &a, &b)
	require.NoError(t, err)
	return a > major || a == major && b >= minor
}
