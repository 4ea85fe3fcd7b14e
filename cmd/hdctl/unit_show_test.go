package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/leak"
)

// A service manager that hangs is waited for once, and not for each question.
func TestShowGivesUp(t *testing.T) {
	leak.Check(t)
	dir := t.TempDir()
	asked := filepath.Join(dir, "asked")
	script := "#!/bin/sh\necho >> " + asked + "\nexec sleep 1000\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "systemctl"), []byte(script), 0o755))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	a, _, _ := testApp(t)
	show := a.show(500 * time.Millisecond)
	for range 3 {
		_, err := show(t.Context(), "app.service", "LoadState")
		require.EqualError(t, err, "systemctl show: no answer within 500ms")
	}
	content, err := os.ReadFile(asked)
	require.NoError(t, err)
	assert.Equal(t, "\n", string(content))
}
