package pidfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is how many symbolic links may lead to the file, as many as the
// kernel follows: path_resolution(7).
const maxLinks = 40

// place is the directory of the file, open, and the name in it. What is looked
// at in a directory is what is changed then, whatever happens to the path.
type place struct {
	dir  int
	path string
	name string
}

// find opens the place of path, at the end of the links that may be followed.
// The caller closes it.
func find(path string) (*place, error) {
	if !filepath.IsAbs(path) || strings.ContainsRune(path, 0) {
		return nil, fmt.Errorf("%q: the path is not absolute", path)
	}
	for range maxLinks {
		dir, name := filepath.Split(path)
		switch name {
		case "", ".", "..":
			return nil, &fs.PathError{Op: "open", Path: path, Err: unix.EISDIR}
		}
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: dir, Err: err}
		}
		p := &place{dir: fd, path: path, name: name}
		target, err := p.link()
		if err != nil {
			p.close()
			return nil, err
		}
		if target == "" {
			return p, nil
		}
		p.close()
		if !filepath.IsAbs(target) {
			target = dir + target // not cleaned: ".." goes up from where a link leads
		}
		path = target
	}
	return nil, &fs.PathError{Op: "open", Path: path, Err: unix.ELOOP}
}

func (p *place) close() { unix.Close(p.dir) }

func (p *place) wrap(op string, err error) error {
	return &fs.PathError{Op: op, Path: p.path, Err: err}
}

// link returns what the file points to if it is a symbolic link that may be
// followed, and "" otherwise.
func (p *place) link() (string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(p.dir, &st); err != nil {
		return "", p.wrap("fstat", err)
	}
	ours := st.Uid == 0 || st.Uid == uint32(os.Geteuid())
	if !ours || st.Mode&(unix.S_IWGRP|unix.S_IWOTH) != 0 {
		return "", nil
	}
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(p.dir, p.name, b)
	switch {
	case err == unix.EINVAL, err == unix.ENOENT: // not a link; nothing
		return "", nil
	case err != nil:
		return "", p.wrap("readlink", err)
	case n == len(b):
		return "", p.wrap("readlink", unix.ENAMETOOLONG)
	}
	return string(b[:n]), nil
}

// open opens the file as it is: a regular one, no link.
func (p *place) open(flags int) (int, error) {
	// O_NONBLOCK is for the open(2) of a FIFO, which would wait for somebody.
	fd, err := unix.Openat(p.dir, p.name, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	switch {
	case err == unix.ELOOP:
		return -1, p.wrap("open", fmt.Errorf("it is a symbolic link in a directory that others can write, and not followed: %w", err))
	case err != nil:
		return -1, p.wrap("open", err)
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	switch {
	case err != nil:
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		err = fmt.Errorf("it is not a regular file: %w", unix.EINVAL)
	case st.Nlink > 1 && flags&unix.O_ACCMODE != unix.O_RDONLY:
		// A hard link is a way to have somebody write to a file of his that
		// needs no more than a directory, as a symbolic link is.
		err = fmt.Errorf("it has %d names, and is not written in place: %w", st.Nlink, unix.EMLINK)
	default:
		return fd, nil
	}
	unix.Close(fd)
	return -1, p.wrap("open", err)
}

func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
