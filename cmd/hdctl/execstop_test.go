package main

import (
	"bytes"
	"context"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func execStop(ctx context.Context, mainPID string) (int, string) {
	var stdout, stderr bytes.Buffer
	code := run(ctx, []string{"exec-stop"}, strings.NewReader(""), &stdout, &stderr, []string{"MAINPID=" + mainPID})
	return code, stdout.String() + stderr.String()
}

func TestExecStopWaitsForTheEnd(t *testing.T) {
	cmd := exec.Command("sh", "-c", `trap "" TERM; echo ready; read -r line; exit 7`) // ends when we say so
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	_, err = stdout.Read(make([]byte, 6))
	require.NoError(t, err)

	done := make(chan int, 1)
	go func() {
		code, _ := execStop(t.Context(), strconv.Itoa(cmd.Process.Pid))
		done <- code
	}()
	select {
	case <-done:
		t.Fatal("it did not wait")
	default:
	}
	require.NoError(t, stdin.Close())
	assert.Zero(t, <-done)
	assert.Error(t, cmd.Wait())
}

func TestExecStopWithNothingToDo(t *testing.T) {
	gone := exec.Command("true")
	require.NoError(t, gone.Run())
	for _, pid := range []string{"", "0", strconv.Itoa(gone.Process.Pid)} {
		code, out := execStop(t.Context(), pid)
		assert.Zero(t, code, "%q: %s", pid, out)
		assert.Empty(t, out)
	}
	for _, pid := range []string{"1", "-1", "x"} {
		code, out := execStop(t.Context(), pid)
		assert.Equal(t, exitUsage, code, "%q", pid)
		assert.Contains(t, out, "systemctl stop")
	}
}

func TestExecStopEndsWithItsContext(t *testing.T) {
	cmd := exec.Command("sh", "-c", `trap "" TERM; echo ready; read -r line`)
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	_, err = stdout.Read(make([]byte, 6))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	code, out := execStop(ctx, strconv.Itoa(cmd.Process.Pid))
	assert.Equal(t, exitUnknown, code, out)
	require.NoError(t, stdin.Close())
	_ = cmd.Wait()
}
