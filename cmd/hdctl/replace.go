package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// replaceFile puts a file that fill writes in the place of what is at path, in one
// step: whoever opens it meanwhile gets the old or the new one, and so does who
// opens it after a power failure. After an error the old one is there, but for one
// of the last fsync.
func replaceFile(path string, fill func(*os.File) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".hdctl-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	if err := fill(f); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	return rename(f.Name(), path)
}

// replaceByLink puts a symbolic link to target in the place of what is at path, as
// replaceFile does.
func replaceByLink(path, target string) (err error) {
	temporary := filepath.Join(filepath.Dir(path), ".hdctl-"+rand.Text())
	if err := os.Symlink(target, temporary); err != nil {
		return err
	}
	if err := rename(temporary, path); err != nil {
		os.Remove(temporary)
		return err
	}
	return nil
}

// rename moves a file over another one in the same directory, for good.
func rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(to))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
