package testbed

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// enterRoot gives the calling thread a mount namespace of its own, in which the
// root directory is a throw-away copy of rootfs:
//
//	/           overlay: rootfs below, a tmpfs above; what is written is in memory
//	/dev        tmpfs with the few devices that a container has
//	/run, /tmp  tmpfs
//	/share      the directory share of the host
//	/sys        read-only
//
// prepare gets to change it before it becomes the root.
//
// What needs the new PID namespace is left to init.sh: /proc and the cgroups.
// The old root is not reachable afterwards, nor is it changed: the mount
// namespace is private, and it ends with its last process.
func enterRoot(rootfs, mountpoint, share string, prepare func(*os.Root) error) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil { // and CLONE_FS
		return fmt.Errorf("create mount namespace: %w", err)
	}
	// On most hosts mounts are shared: without this the host would see ours.
	if err := mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	root, err := mountOverlay(rootfs, mountpoint)
	if err != nil {
		return err
	}
	if err := mountDevices(root); err != nil {
		return err
	}
	for _, dir := range []string{"proc", "sys", "run", "tmp", "share"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	if err := errors.Join(
		mount("sysfs", root+"/sys", "sysfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""),
		mount("tmpfs", root+"/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"),
		mount("tmpfs", root+"/tmp", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777"),
		mount(share, root+"/share", "", unix.MS_BIND, ""),
	); err != nil {
		return err
	}
	prepared, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer func() { _ = prepared.Close() }()
	if err := prepare(prepared); err != nil {
		return fmt.Errorf("prepare root file system: %w", err)
	}
	// pivot_root(2), "pivot_root(".", ".")": stacks the old root on top of the
	// new one, from where it is removed without a directory for it.
	if err := unix.Chdir(root); err != nil {
		return fmt.Errorf("enter %s: %w", root, err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("make %s the root: %w", root, err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the old root: %w", err)
	}
	return unix.Chdir("/")
}

// mountOverlay mounts rootfs, with a tmpfs on top that takes all writes, and
// returns where.
func mountOverlay(rootfs, mountpoint string) (root string, err error) {
	if strings.ContainsAny(rootfs, ":,\\") {
		return "", fmt.Errorf("root file system %q: the name has a character that overlayfs reserves", rootfs)
	}
	if err := mount("tmpfs", mountpoint, "tmpfs", 0, "mode=755"); err != nil {
		return "", err
	}
	upper, work, root := mountpoint+"/upper", mountpoint+"/work", mountpoint+"/root"
	for _, dir := range []string{upper, work, root} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return "", err
		}
	}
	return root, mount("overlay", root, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", rootfs, upper, work))
}

// mountDevices makes root/dev as systemd's container interface wants it, see
// https://systemd.io/CONTAINER_INTERFACE.
func mountDevices(root string) error {
	dev := root + "/dev"
	if err := os.MkdirAll(dev, 0o755); err != nil {
		return err
	}
	if err := mount("tmpfs", dev, "tmpfs", unix.MS_NOSUID, "mode=755"); err != nil {
		return err
	}
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		file, err := os.Create(filepath.Join(dev, name))
		if err != nil {
			return err
		}
		_ = file.Close()
		if err := mount("/dev/"+name, file.Name(), "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	links := map[string]string{
		"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx",
	}
	for name, target := range links {
		if err := os.Symlink(target, filepath.Join(dev, name)); err != nil {
			return err
		}
	}
	for _, dir := range []string{"pts", "shm"} {
		if err := os.Mkdir(filepath.Join(dev, dir), 0o755); err != nil {
			return err
		}
	}
	return errors.Join(
		mount("devpts", dev+"/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620"),
		mount("tmpfs", dev+"/shm", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777"),
	)
}

// mount is mount(2) with an error that says what failed.
func mount(source, target, fstype string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		return fmt.Errorf("mount %s%s on %s: %w", fstype, source, target, err)
	}
	return nil
}
