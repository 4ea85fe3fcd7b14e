package preflight_test

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/preflight"
)

// Offsets in the header of a 64-bit ELF file: elf(5).
const (
	offType     = 0x10
	offMachine  = 0x12
	offSections = 0x28
	offCount    = 0x3c // of sections
	offNames    = 0x3e // number of the section with their names
)

func TestFile(t *testing.T) {
	leak.Check(t)
	good := self(t)
	patch := func(off int, value uint16) []byte {
		content := bytes.Clone(good)
		binary.LittleEndian.PutUint16(content[off:], value)
		return content
	}
	link := func(target string) string {
		path := filepath.Join(t.TempDir(), "link")
		require.NoError(t, os.Symlink(target, path))
		return path
	}
	special := func(make func(path string) error) string {
		path := filepath.Join(t.TempDir(), "special")
		require.NoError(t, make(path))
		return path
	}
	file := program(t, "good", good, 0o755)
	dir := t.TempDir()
	missing := filepath.Join(dir, "missing")

	tests := []struct {
		name   string
		path   string
		check  string
		result string
		want   string // in the message
	}{
		{"good", file, "file", "ok", file + ": "},
		{"good: executable", file, "executable", "ok", "may be executed"},
		{"good: architecture", file, "architecture", "ok", "bit"},
		{"good: complete", file, "complete", "ok", "all of which is there"},
		{"link", link(file), "file", "ok", "leads to " + file},
		{"link: complete", link(file), "complete", "ok", ""},
		{"dynamic", "/bin/sh", "interpreter", "ok", "dynamic loader /lib"},
		{"script", program(t, "script", []byte("#! /bin/sh -e\n"), 0o755), "interpreter", "ok", "interpreter /bin/sh"},
		{"script without newline", program(t, "script", []byte("#!/bin/sh"), 0o755), "interpreter", "ok", "interpreter /bin/sh"},
		{"missing", missing, "file", "failed", missing + " does not exist"},
		{"below a file", file + "/app", "file", "failed", "not a directory"},
		{"dangling link", link("nowhere"), "file", "failed", "a symbolic link to nowhere, which does not exist"},
		{"link to itself", link("link"), "file", "failed", "too many levels of symbolic links"},
		{"directory", dir, "file", "failed", "no regular file but a directory"},
		{"fifo", special(func(p string) error { return unix.Mkfifo(p, 0o755) }), "file", "failed", "but a FIFO"},
		{"device", "/dev/null", "file", "failed", "but a device"},
		{"empty", program(t, "empty", nil, 0o755), "file", "failed", "is empty"},
		{"not executable", program(t, "plain", good, 0o644), "executable", "failed", "(mode 0644) may not be executed by this service"},
		{"tiny", program(t, "tiny", []byte("x"), 0o755), "complete", "failed", "it has 1 bytes"},
		{"unknown format", program(t, "binfmt", []byte("MZ\x90\x00\x03"), 0o755), "architecture", "warning", "neither an ELF program nor a script"},
		{"another architecture", program(t, "foreign", patch(offMachine, 0xf3), 0o755), "architecture", "failed", "another architecture: RISCV"},
		{"no program", program(t, "object", patch(offType, 1), 0o755), "architecture", "failed", "no program: ET_REL"},
		{"half", program(t, "half", good[:len(good)/2], 0o755), "complete", "failed", "bytes"},
		{"all but one byte", program(t, "almost", good[:len(good)-1], 0o755), "complete", "failed", "is cut short"},
		{"damaged", program(t, "damaged", []byte("\x7fELF\x07 nothing more than this, which is not much"), 0o755), "complete", "failed", "is a damaged ELF file"},
		{"only the header", program(t, "header", good[:100], 0o755), "complete", "failed", "is cut short: it has 100 bytes"},
		{"script of nothing", program(t, "nothing", []byte("#! \n\n"), 0o755), "interpreter", "failed", "without an interpreter"},
		{"script without interpreter", program(t, "lost", []byte("#!/no/such -x\n"), 0o755), "interpreter", "failed", "needs the interpreter /no/such: no such file"},
		{"no dynamic loader", program(t, "alien", withLoader(t), 0o755), "interpreter", "failed", "needs the dynamic loader /"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			checks := run(t, preflight.Config{Path: test.path})
			got := find(t, checks, test.check)
			assert.Equal(t, test.result, got.Result, got.Message)
			assert.Contains(t, got.Message, test.want)
			assert.Contains(t, got.Message, test.path)
			if test.result == control.CheckFailed {
				require.NotNil(t, preflight.Failed(checks))
				assert.Equal(t, got, *preflight.Failed(checks), "the only one")
			} else {
				assert.Nil(t, preflight.Failed(checks), "%+v", checks)
			}
			find(t, checks, "descriptors") // the others are made all the same
		})
	}
}

// TestNoexec is about a mount from which nothing may be executed.
func TestNoexec(t *testing.T) {
	leak.Check(t)
	if os.Geteuid() != 0 {
		t.Skip("only root may mount")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "app")
	var checks []control.Check
	var err error
	done := make(chan struct{})
	go func() { // on a thread with mounts of its own, which ends with it
		defer close(done)
		runtime.LockOSThread()
		if err = unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			return
		}
		if err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return
		}
		if err = unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOEXEC, ""); err != nil {
			return
		}
		if err = os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755); err == nil {
			checks = preflight.Run(t.Context(), preflight.Config{Path: path})
		}
	}()
	<-done
	require.NoError(t, err)
	got := find(t, checks, "executable")
	assert.Equal(t, control.CheckFailed, got.Result)
	assert.Equal(t, path+" is on a file system from which nothing may be executed", got.Message)
}

// withLoader returns a program whose dynamic loader is not there.
func withLoader(t *testing.T) []byte {
	content, err := os.ReadFile("/bin/sh")
	require.NoError(t, err)
	f, err := elf.NewFile(bytes.NewReader(content))
	require.NoError(t, err)
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			content[p.Off+p.Filesz-2] = '?' // before the zero
			return content
		}
	}
	t.Skip("/bin/sh has no dynamic loader")
	return nil
}

// TestCut looks at a file in all states of being copied.
func TestCut(t *testing.T) {
	leak.Check(t)
	good := self(t)
	path := program(t, "app", good, 0o755)
	for cut := len(good) - 1; cut > 0; cut = cut * 9 / 10 {
		require.NoError(t, os.Truncate(path, int64(cut)))
		require.NotNil(t, preflight.Failed(run(t, preflight.Config{Path: path})), "%d of %d bytes", cut, len(good))
	}

	// A file without sections, of which a segment is missing.
	bare := bytes.Clone(good)
	binary.LittleEndian.PutUint64(bare[offSections:], 0)
	binary.LittleEndian.PutUint16(bare[offCount:], 0)
	binary.LittleEndian.PutUint16(bare[offNames:], 0)
	assert.Nil(t, preflight.Failed(run(t, preflight.Config{Path: program(t, "app", bare, 0o755)})))
	half := program(t, "app", bare[:len(bare)/4], 0o755)
	assert.Regexp(t, "is cut short: it has [0-9]+ bytes of at least [0-9]+$", preflight.Failed(run(t, preflight.Config{Path: half})).Message)

	// The section header table at the end is missing, and only that.
	stripped := append(bytes.Clone(good), make([]byte, 64)...)
	binary.LittleEndian.PutUint64(stripped[offSections:], uint64(len(good)))
	binary.LittleEndian.PutUint16(stripped[offCount:], 1)
	checks := run(t, preflight.Config{Path: program(t, "app", stripped[:len(stripped)-1], 0o755)})
	assert.Equal(t, "complete", preflight.Failed(checks).Name)
}

// TestNotReadable is about a program that its user may execute, and not read.
func TestNotReadable(t *testing.T) {
	leak.Check(t)
	if os.Geteuid() != 0 {
		path := program(t, "app", self(t), 0o111)
		checks := run(t, preflight.Config{Path: path})
		assert.Nil(t, preflight.Failed(checks))
		assert.Contains(t, find(t, checks, "architecture").Message, "cannot be read")
		return
	}
	// As another user, in another process.
	dir, err := os.MkdirTemp("", "preflight")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	binary := filepath.Join(dir, "test")
	require.NoError(t, os.WriteFile(binary, self(t), 0o755))
	cmd := exec.Command(binary, "-test.run=^TestNotReadable$")
	cmd.Dir = dir
	cmd.Env = []string{"TMPDIR=/tmp"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// TestOpenFile is about files that are looked at without a path.
func TestOpenFile(t *testing.T) {
	leak.Check(t)
	open := func(t *testing.T, content []byte, mode os.FileMode) *os.File {
		f, err := os.Open(program(t, "app", content, mode))
		require.NoError(t, err)
		t.Cleanup(func() { f.Close() })
		return f
	}
	good := self(t)

	t.Run("deleted and replaced", func(t *testing.T) {
		f := open(t, good, 0o755)
		require.NoError(t, os.Remove(f.Name()))
		require.NoError(t, os.WriteFile(f.Name(), []byte("garbage"), 0o644))
		require.Nil(t, preflight.Failed(run(t, preflight.Config{Path: "/no/such", File: f})))
		checks := run(t, preflight.Config{File: f})
		require.Nil(t, preflight.Failed(checks), "%+v", checks)
		assert.Contains(t, find(t, checks, "file").Message, f.Name()+" is still open: ")
		find(t, checks, "complete")
		at, err := f.Seek(0, io.SeekCurrent)
		require.NoError(t, err)
		assert.Zero(t, at)
	})
	t.Run("truncated", func(t *testing.T) {
		f := open(t, good, 0o755)
		require.NoError(t, os.Truncate(f.Name(), 1000))
		assert.Equal(t, "complete", preflight.Failed(run(t, preflight.Config{File: f})).Name)
		require.NoError(t, os.Truncate(f.Name(), 0))
		failed := preflight.Failed(run(t, preflight.Config{Path: "/usr/bin/app", File: f}))
		assert.Equal(t, "/usr/bin/app is empty", failed.Message)
	})
	t.Run("not executable", func(t *testing.T) {
		assert.Equal(t, "executable", preflight.Failed(run(t, preflight.Config{File: open(t, good, 0o644)})).Name)
	})
	t.Run("a script", func(t *testing.T) {
		failed := preflight.Failed(run(t, preflight.Config{File: open(t, []byte("#!/bin/sh\n"), 0o755)}))
		assert.Equal(t, "interpreter", failed.Name)
		assert.Contains(t, failed.Message, "is a script")
	})
	t.Run("memfd", func(t *testing.T) {
		fd, err := unix.MemfdCreate("app", unix.MFD_CLOEXEC)
		require.NoError(t, err)
		f := os.NewFile(uintptr(fd), "copy of app")
		defer f.Close()
		_, err = f.Write(good)
		require.NoError(t, err)
		checks := run(t, preflight.Config{File: f})
		assert.Nil(t, preflight.Failed(checks), "%+v", checks)
	})
	t.Run("closed", func(t *testing.T) {
		f := open(t, good, 0o755)
		require.NoError(t, f.Close())
		assert.Equal(t, "file", preflight.Failed(run(t, preflight.Config{File: f})).Name)
	})
}

func FuzzContent(f *testing.F) {
	good := self(f)
	f.Add(good[:4096])
	f.Add([]byte("#!/bin/sh"))
	f.Add([]byte("\x7fELF\x02\x01\x01"))
	path := filepath.Join(f.TempDir(), "file")
	f.Fuzz(func(t *testing.T, content []byte) {
		if err := os.WriteFile(path, content, 0o755); err != nil {
			t.Fatal(err)
		}
		run(t, preflight.Config{Path: path}) // must not panic, whatever is in the file
	})
}
