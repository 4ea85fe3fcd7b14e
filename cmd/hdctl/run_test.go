package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/leak"
)

// The same Ctrl-C ends the context and comes as a signal. In whichever order that is
// seen, it is one: the service is not killed.
func TestRunInterruptedOnce(t *testing.T) {
	leak.Check(t)
	a, _, stderr := testApp(t)
	self, err := exec.LookPath("hdctl") // of testscript
	require.NoError(t, err)
	a.self = self
	dir := t.TempDir()
	program := filepath.Join(dir, "stubborn")
	require.NoError(t, os.WriteFile(program, []byte(`#!/bin/sh
cd `+dir+`
trap '>told' TERM
>up
while ! test -e end; do sleep 0.01; done
exit 4
`), 0o755))
	await := func(name string) {
		require.Eventually(t, func() bool {
			_, err := os.Stat(filepath.Join(dir, name))
			return err == nil
		}, time.Minute, time.Millisecond, name)
	}
	ctx, cancel := context.WithCancel(t.Context())
	code := 0
	var run sync.WaitGroup
	run.Go(func() { code = a.run(ctx, []string{"run", "--user", program}) })
	await("up")
	cancel()
	await("told")
	require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGTERM))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "end"), nil, 0o600))
	run.Wait()
	assert.Equal(t, 4, code, stderr.String())
	assert.NotContains(t, stderr.String(), "killing")
}

// SIGHUP is an upgrade, unless it comes because the terminal is gone.
func TestRunTerminalGone(t *testing.T) {
	leak.Check(t)
	self, err := exec.LookPath("hdctl") // of testscript
	require.NoError(t, err)
	dir := t.TempDir()
	tty := newPTY(t)
	cmd := exec.Command(self, "run", "--user", "--name", "x", "--", "/bin/sleep", "100")
	cmd.Env = append(os.Environ(), "TEST_RUN_DIR="+dir, "TEST_STATE_DIR="+dir, "GORACE=atexit_sleep_ms=0")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty.File, tty.File, tty.File
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	require.NoError(t, cmd.Start())
	defer func() { _ = cmd.Process.Kill() }()
	tty.readUntil(t, func(s string) bool { return strings.Contains(s, "started") })
	require.NoError(t, tty.master.Close())
	assert.NoError(t, cmd.Wait())
}
