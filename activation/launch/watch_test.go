package launch_test

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/activation/launch"
	"github.com/hdctl/handoff/test/leak"
)

// What is replaced, rewritten or switched by a symbolic link is noticed once; what is
// not executable, or cut short, is not, until it is.
func TestWatch(t *testing.T) {
	leak.Check(t)
	self, err := os.ReadFile(os.Args[0])
	require.NoError(t, err)
	dir := t.TempDir()
	path := filepath.Join(dir, "app")
	write := func(name string, data []byte, mode os.FileMode) {
		t.Helper()
		require.NoError(t, os.WriteFile(dir+"/new", data, mode))
		require.NoError(t, os.Chmod(dir+"/new", mode))
		require.NoError(t, os.Rename(dir+"/new", name))
	}
	write(path, []byte("#!/bin/sh\n"), 0o755)

	ctx, cancel := context.WithCancel(t.Context())
	changed := make(chan launch.File)
	var watch sync.WaitGroup
	from := launch.Identify(path)
	watch.Go(func() {
		launch.Watch(ctx, path, from, time.Millisecond, func() { changed <- launch.Identify(path) })
	})
	defer watch.Wait()
	defer cancel()

	next := func(what string) {
		t.Helper()
		select {
		case f := <-changed:
			assert.Equal(t, launch.Identify(path), f)
		case <-time.After(time.Minute):
			t.Fatal(what)
		}
	}
	write(path, []byte("#!/bin/sh\nexit 1\n"), 0o755)
	next("replaced")
	require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\nexit 12\n"), 0o755))
	next("rewritten")
	write(dir+"/v2", self, 0o755)
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.Symlink("v2", path))
	next("a symbolic link")

	write(dir+"/v2", self, 0o644)
	write(dir+"/v2", self[:len(self)/2], 0o755)
	write(dir+"/v2", self[:10], 0o755)
	write(dir+"/v2", nil, 0o755)
	require.NoError(t, os.Remove(dir+"/v2"))
	write(dir+"/v2", self, 0o755)
	next("complete")

	none := launch.File{}
	assert.Equal(t, none, launch.Identify(dir+"/none"))
}

// Half of a program is seen as such however long one looks.
func TestWatchIncomplete(t *testing.T) {
	leak.Check(t)
	self, err := os.ReadFile(os.Args[0])
	require.NoError(t, err)
	dir := t.TempDir()
	for name, data := range map[string][]byte{"half": self[:len(self)/2], "head": self[:70], "magic": self[:4], "empty": nil} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), data, 0o755))
		assert.False(t, launch.Complete(filepath.Join(dir, name)), name)
	}
	assert.True(t, launch.Complete(os.Args[0]))
	assert.True(t, launch.Complete("/proc/self/exe"))
	assert.False(t, launch.Complete(dir), "a directory")
}
