package upgrade

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/control"
)

func TestPreflight(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, content []byte, mode fs.FileMode) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, content, mode))
		return path
	}
	self, err := os.ReadFile(ownExecutable)
	require.NoError(t, err)
	foreign := append([]byte(nil), self[:]...)
	foreign[0x12], foreign[0x13] = 0xf3, 0 // e_machine: RISC-V
	object := append([]byte(nil), self...)
	object[0x10], object[0x11] = 1, 0 // e_type: relocatable
	dangling := filepath.Join(dir, "dangling")
	require.NoError(t, os.Symlink("nowhere", dangling))

	tests := []struct{ name, path, want string }{
		{"good", write("good", self, 0o755), ""},
		{"good script", write("script", []byte("#! /bin/sh -e\n"), 0o755), ""},
		{"a format that the kernel may know", write("binfmt", []byte("MZ\x90\x00\x03"), 0o755), ""},
		{"missing", filepath.Join(dir, "missing"), "does not exist"},
		{"dangling link", dangling, "symbolic link to nowhere"},
		{"directory", dir, "not a regular file"},
		{"not executable", write("plain", self, 0o644), "not executable"},
		{"empty", write("empty", nil, 0o755), "is empty"},
		{"tiny", write("tiny", []byte("x"), 0o755), "1 bytes"},
		{"no interpreter", write("nothing", []byte("#! \n\n"), 0o755), "without an interpreter"},
		{"interpreter missing", write("lost", []byte("#!/no/such\n"), 0o755), "interpreter /no/such"},
		{"another architecture", write("foreign", foreign, 0o755), "another architecture"},
		{"no program", write("object", object, 0o755), "no executable"},
		{"half", write("half", self[:len(self)/2], 0o755), "still being written"},
		{"only the header", write("header", self[:100], 0o755), "still being written"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := preflight(tt.path)
			if tt.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tt.want)
			require.ErrorContains(t, err, tt.path)
		})
	}
	require.ErrorIs(t, preflight(filepath.Join(dir, "missing")), fs.ErrNotExist)
}

func FuzzPreflight(f *testing.F) {
	self, err := os.ReadFile(ownExecutable)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(self[:4096])
	f.Add([]byte("#!/bin/sh"))
	f.Add([]byte("\x7fELF\x02\x01\x01"))
	path := filepath.Join(f.TempDir(), "file")
	f.Fuzz(func(t *testing.T, content []byte) {
		if err := os.WriteFile(path, content, 0o755); err != nil {
			t.Fatal(err)
		}
		_ = preflight(path) // must not panic, whatever is in the file
	})
}

func TestDiskCompare(t *testing.T) {
	self, err := os.ReadFile(ownExecutable)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "program")
	d := &disk{path: path}

	assert.Equal(t, control.DiskMissing, d.compare(fileID{}).State)
	require.NoError(t, os.WriteFile(path, self, 0o755))
	assert.Equal(t, control.DiskSame, d.compare(fileID{}).State, "a copy is the same")
	self[len(self)-1]++
	require.NoError(t, os.WriteFile(path, self, 0o755))
	assert.Equal(t, control.DiskDiffers, d.compare(fileID{}).State, "by one byte")
	assert.True(t, d.compare(identify(path)).Failed)
	require.NoError(t, os.WriteFile(path, self[1:], 0o755))
	assert.Equal(t, control.DiskDiffers, d.compare(fileID{}).State, "by its size")
	require.NoError(t, os.Chmod(path, 0o644))
	assert.Equal(t, control.DiskNotExecutable, d.compare(fileID{}).State)
}
