package main

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/leak"
)

// This process, as /proc shows it.
func TestReadProcess(t *testing.T) {
	leak.Check(t)
	p, err := readProcess(os.Getpid())
	require.NoError(t, err)
	exe, err := os.Executable()
	require.NoError(t, err)
	assert.Equal(t, os.Getpid(), p.PID)
	assert.Equal(t, exe, p.Exe)
	assert.Greater(t, p.RSS, int64(1<<20))
	assert.WithinRange(t, p.Started, time.Now().Add(-time.Hour), time.Now().Add(2*time.Second))
	assert.Contains(t, "RS", p.State)

	_, err = readProcess(1 << 30)
	require.ErrorIs(t, err, os.ErrNotExist)
}

// Who listens is found; who is only connected is not.
func TestHolders(t *testing.T) {
	leak.Check(t)
	dir, err := os.MkdirTemp("", "hd")
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	ln, err := net.Listen("unix", path)
	require.NoError(t, err)
	c, err := net.Dial("unix", path)
	require.NoError(t, err)
	defer c.Close()
	accepted, err := ln.Accept()
	require.NoError(t, err)
	defer accepted.Close()
	assert.Equal(t, []int{os.Getpid()}, holders(path))
	found := processes("/nonexistent.slice", path)
	require.Len(t, found, 1)
	assert.Equal(t, os.Getpid(), found[0].PID)

	require.NoError(t, ln.Close())
	assert.Empty(t, holders(path))
	assert.Empty(t, processes("", path))
}
