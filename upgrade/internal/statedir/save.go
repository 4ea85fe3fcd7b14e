package statedir

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// maxSize is the size of the largest file that Save writes and Load reads.
	maxSize = 1 << 20

	// maxName leaves room for the name of the temporary file: NAME_MAX is 255.
	maxName = 200
)

// Save writes v as JSON to the file name, with mode 0640 less the umask. It
// replaces the file at once, or leaves it as it was: a crash, of the machine
// too, leaves the old content or the new one. A symbolic link of that name is
// replaced, not followed.
//
// A name has no slash, does not begin with a dot, and is not that of a file of
// the history.
func (d *Dir) Save(name string, v any) error {
	if err := d.save(name, v); err != nil {
		return fmt.Errorf("save %s: %w", name, err)
	}
	return nil
}

func (d *Dir) save(name string, v any) error {
	if err := checkName(name); err != nil {
		return err
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return err
	}
	if b.Len() > maxSize {
		return fmt.Errorf("%d bytes, and %d are allowed: %w", b.Len(), maxSize, ErrTooLarge)
	}
	dir, err := d.open()
	if err != nil {
		return err
	}
	defer dir.close()
	// Under the lock the temporary file can have the same name each time: what
	// a crash left behind is replaced, and does not pile up.
	if err := dir.lock(); err != nil {
		return err
	}
	temp := "." + name + ".tmp"
	if err := writeTemp(dir, temp, b.Bytes()); err != nil {
		return err
	}
	if err := retryErr(func() error { return unix.Renameat(dir.fd, temp, dir.fd, name) }); err != nil {
		_ = unix.Unlinkat(dir.fd, temp, 0)
		return dir.wrap("rename", name, err)
	}
	return dir.sync()
}

// writeTemp makes the file temp with that content, on the disk, or none.
func writeTemp(dir *directory, temp string, content []byte) error {
	if err := unix.Unlinkat(dir.fd, temp, 0); err != nil && err != unix.ENOENT {
		return dir.wrap("unlink", temp, err)
	}
	f, err := dir.openFile(temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return err
	}
	defer f.close()
	_, err = f.write(content, 0)
	if err == nil {
		err = retryErr(func() error { return unix.Fsync(int(f)) })
	}
	if err != nil {
		_ = unix.Unlinkat(dir.fd, temp, 0)
		return dir.wrap("write", temp, err)
	}
	return nil
}

// Load reads the file name, which [Dir.Save] wrote, into v. The error wraps
// fs.ErrNotExist if there is none, and [ErrTooLarge] if it is so large that it
// cannot be Save's. If it cannot be decoded, v may have been changed in part.
func (d *Dir) Load(name string, v any) error {
	if err := d.load(name, v); err != nil {
		return fmt.Errorf("load %s: %w", name, err)
	}
	return nil
}

func (d *Dir) load(name string, v any) error {
	if err := checkName(name); err != nil {
		return err
	}
	dir, err := d.open()
	if err != nil {
		return err
	}
	defer dir.close()
	f, err := dir.openFile(name, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.close()
	st, err := f.stat()
	if err != nil {
		return dir.wrap("fstat", name, err)
	}
	if st.Size > maxSize {
		return fmt.Errorf("%d bytes, and %d are allowed: %w", st.Size, maxSize, ErrTooLarge)
	}
	content := make([]byte, st.Size)
	if _, err := f.ReadAt(content, 0); err != nil {
		return dir.wrap("read", name, err)
	}
	return json.Unmarshal(content, v)
}

// Remove removes the file name. It is no error if there is none.
func (d *Dir) Remove(name string) error {
	if err := d.remove(name); err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

func (d *Dir) remove(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	dir, err := d.open()
	if err != nil {
		return err
	}
	defer dir.close()
	err = retryErr(func() error { return unix.Unlinkat(dir.fd, name, 0) })
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return dir.wrap("unlink", name, err)
	}
	return dir.sync()
}

func checkName(name string) error {
	switch {
	case name == "", strings.HasPrefix(name, "."), strings.ContainsAny(name, "/\x00"), len(name) > maxName:
		return fmt.Errorf("not a file name to use here: %w", fs.ErrInvalid)
	case strings.HasPrefix(name, historyFile):
		return fmt.Errorf("the name is taken by the history: %w", fs.ErrInvalid)
	}
	return nil
}
