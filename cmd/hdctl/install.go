package main

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/upgrade/control"
)

// restored is the program that a rollback has brought back.
type restored struct {
	pid    int
	digest string // SHA-256 in hexadecimal; empty if the service does not say
}

// restoredOf says what runs after a rollback; before is from before it.
func restoredOf(before *control.Status, r *control.Result) restored {
	if r.Outcome == control.OutcomeRolledBack { // it never stopped
		return restored{pid: cmp.Or(r.FromPID, mainPID(before)), digest: r.FromDigest}
	}
	return restored{pid: r.ToPID, digest: r.ToDigest}
}

// exe is its file, whatever has become of its path: see proc_pid_exe(5).
func (p restored) exe() string { return fmt.Sprintf("/proc/%d/exe", p.pid) }

// byHand is how to put it back without us.
func (p restored) byHand(path string) string {
	return fmt.Sprintf("install -T %s %s puts the file that runs back", p.exe(), path)
}

// open opens the file of the process. The caller closes it. Whether the PID has
// been somebody else's by then is for install to see.
func (p restored) open() (*os.File, error) {
	if p.pid == 0 {
		return nil, errors.New("the service did not say which process it is")
	}
	f, err := os.Open(p.exe())
	if err != nil {
		return nil, fmt.Errorf("open the file that runs: %w", err)
	}
	return f, nil
}

// install makes the path that the service is started with lead to exe, the file
// that p runs, and returns that path. s is a status from after exe was opened,
// previous is what the service, before the rollback, said it would run; it may be
// nil. Whoever executes the path meanwhile gets the file from before or this one.
func (p restored) install(exe *os.File, s *control.Status, previous *control.Program) (string, error) {
	switch {
	case s.Disk == nil || s.Disk.Path == "":
		return "", errors.New("the service does not say which file it is started with")
	case mainPID(s) != p.pid:
		return "", fmt.Errorf("process %d is not the main one any more, process %d is", p.pid, mainPID(s))
	}
	path := s.Disk.Path
	digest, err := digestOf(exe)
	if err != nil {
		return "", fmt.Errorf("read the file that runs: %w", err)
	}
	if p.digest != "" && p.digest != digest {
		return "", fmt.Errorf("%s is not what the service says it runs: its SHA-256 is %s and not %s", p.exe(), digest, clean(p.digest))
	}
	var there string // of the old file, where it may still be
	for _, candidate := range []string{pathOf(previous), linkOf(p.exe())} {
		if there == "" && hasDigest(candidate, digest) {
			there = candidate
		}
	}
	info, err := os.Lstat(path)
	switch {
	case err == nil && info.Mode().Type() == fs.ModeSymlink:
		return path, p.relink(path, there, digest)
	case err == nil && !info.Mode().IsRegular():
		return "", fmt.Errorf("%s is not a regular file but %v", path, info.Mode().Type())
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	if hasDigest(path, digest) {
		return path, nil
	}
	// Where the versions are in directories of their own, and a symbolic link
	// says which one counts, this file belongs to another version.
	if dir := filepath.Dir(path); there != "" && !sameDir(dir, filepath.Dir(there)) {
		if link := linkIn(dir); link != "" {
			return "", behindLink(path, link, there)
		}
	}
	return path, copyTo(path, exe, info, digest)
}

// copyTo replaces what is at path, which has info, nil for nothing, by a copy of
// exe.
func copyTo(path string, exe io.ReaderAt, info fs.FileInfo, digest string) error {
	return replaceFile(path, func(f *os.File) error {
		h := sha256.New()
		if _, err := io.Copy(io.MultiWriter(f, h), io.NewSectionReader(exe, 0, 1<<62)); err != nil {
			return err
		}
		if copied := hex.EncodeToString(h.Sum(nil)); copied != digest {
			return fmt.Errorf("what was copied has the SHA-256 %s and not %s", copied, digest)
		}
		if info == nil {
			return f.Chmod(0o755)
		}
		return dressLike(f, path, info)
	})
}

// dressLike gives f the owner, the mode and the capabilities of the file at path.
// A change of the owner takes away the other two, so it comes first.
func dressLike(f *os.File, path string, info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.New("the owner of the old file is not known")
	}
	own, err := f.Stat()
	if err != nil {
		return err
	}
	if now, ok := own.Sys().(*syscall.Stat_t); !ok || now.Uid != st.Uid || now.Gid != st.Gid {
		if err := f.Chown(int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	if err := unix.Fchmod(int(f.Fd()), st.Mode&0o7777); err != nil {
		return os.NewSyscallError("fchmod", err)
	}
	for _, name := range []string{"security.capability", "security.selinux"} {
		if err := copyAttribute(f, path, name); err != nil {
			return fmt.Errorf("copy the attribute %s: %w", name, err)
		}
	}
	return nil
}

// copyAttribute gives f an extended attribute of the file at path, if that has it.
func copyAttribute(f *os.File, path, name string) error {
	var value [4096]byte
	n, err := unix.Lgetxattr(path, name, value[:])
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return err
	}
	return unix.Fsetxattr(int(f.Fd()), name, value[:n], 0)
}

// relink points the symbolic link at path to target, the file that runs; "" if
// that is nowhere any more.
func (p restored) relink(path, target, digest string) error {
	if hasDigest(path, digest) {
		return nil
	}
	if target == "" {
		was, _ := os.Readlink(path)
		return &installError{
			fmt.Errorf("%s is a symbolic link, to %s, and the file that runs is not on disk any more, so that there is nothing to point it to", path, was),
			fmt.Sprintf("install -T %s FILE && ln -sfn FILE %s", p.exe(), path),
		}
	}
	return replaceByLink(path, target)
}

// behindLink is the error where another version than the one in path's directory
// runs.
func behindLink(path, link, there string) error {
	out := &installError{error: fmt.Errorf("%s is behind the symbolic link %s, and the file that runs is still on disk, as %s: it is the link that has to change", path, link, there)}
	if dir, ok := strings.CutSuffix(there, strings.TrimPrefix(path, link)); ok {
		out.hint = fmt.Sprintf("ln -sfn %s %s", dir, link)
	}
	return out
}

// installError is an error of install for which there is a better hint than to copy
// the file.
type installError struct {
	error
	hint string
}

func (e *installError) Unwrap() error { return e.error }

// digestOf reads f from its beginning to its end.
func digestOf(f io.ReaderAt) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, 1<<62)); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// hasDigest tells whether there is a regular file at path, through symbolic links,
// with this SHA-256.
func hasDigest(path, digest string) bool {
	if path == "" {
		return false
	}
	// What is there may be anything by now, as a FIFO without a writer.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return false
	}
	sum, err := digestOf(f)
	return err == nil && sum == digest
}

// pathOf is where the program was; "" if it is not known.
func pathOf(p *control.Program) string {
	if p == nil {
		return ""
	}
	return p.Path
}

// linkOf is where the file of a process is, if it still is there.
func linkOf(exe string) string {
	path, err := os.Readlink(exe)
	if err != nil || !filepath.IsAbs(path) || strings.HasSuffix(path, " (deleted)") {
		return ""
	}
	return path
}

// linkIn is the first symbolic link on the way to dir, or "".
func linkIn(dir string) string {
	for path := dir; path != "/" && path != "."; path = filepath.Dir(path) {
		if info, err := os.Lstat(path); err == nil && info.Mode().Type() == fs.ModeSymlink {
			return path
		}
	}
	return ""
}

// sameDir tells whether two paths lead to the same directory.
func sameDir(x, y string) bool {
	a, errA := os.Stat(x)
	b, errB := os.Stat(y)
	return cmp.Or(errA, errB) == nil && os.SameFile(a, b)
}
