package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/hdctl/handoff/test/testbed"
)

// packages is what a root file system has besides the essential ones.
var packages = []string{"systemd", "systemd-sysv", "dbus", "iproute2"}

// unneeded is what is deleted of a new root file system, to halve it.
var unneeded = []string{"var/cache/apt/archives/*.deb", "var/lib/apt/lists/*", "usr/share/doc", "usr/share/locale", "usr/share/man"}

// bootstrapLimit is much more than debootstrap needs.
const bootstrapLimit = 20 * time.Minute

// host is a root file system that has booted.
type host struct {
	suite, rootfs   string
	debian, systemd string // versions, as they call themselves
}

// prepare finds the root file system of a suite, or makes it, and boots it to see
// that this works.
func (m matrix) prepare(ctx context.Context, suite string) (host, error) {
	h := host{suite: suite, rootfs: filepath.Join(m.cache, suite)}
	if m.fresh || !complete(h.rootfs) {
		debootstrap, err := findDebootstrap(ctx)
		if err != nil {
			return h, err
		}
		say("%s: making a root file system, which takes some minutes", suite)
		if err := bootstrap(ctx, debootstrap, suite, os.Getenv("DEBIAN_MIRROR"), h.rootfs); err != nil {
			return h, err
		}
	}
	tb, err := testbed.Start(ctx, testbed.Options{Name: suite, Rootfs: h.rootfs})
	if err != nil {
		return h, fmt.Errorf("boot %s: %w", h.rootfs, err)
	}
	out := tb.Run(ctx, "sh", "-c", "cat /etc/debian_version && systemctl --version")
	if err := errors.Join(out.Err(), tb.Stop()); err != nil {
		return h, fmt.Errorf("look at %s: %w", h.rootfs, err)
	}
	lines := strings.SplitN(out.Stdout, "\n", 3)
	if len(lines) < 3 {
		return h, fmt.Errorf("look at %s: unexpected output %q", h.rootfs, out.Stdout)
	}
	h.debian, h.systemd = lines[0], systemdVersion(lines[1])
	return h, nil
}

// systemdVersion reads the first line of systemctl --version: "systemd 257
// (257.13-1)".
func systemdVersion(line string) string {
	fields := strings.Fields(line)
	if len(fields) < 2 {
		return line
	}
	if len(fields) == 2 {
		return fields[1]
	}
	return strings.Trim(fields[2], "()")
}

// complete tells whether all packages are installed in a root file system.
func complete(rootfs string) bool {
	f, err := os.Open(filepath.Join(rootfs, "var/lib/dpkg/status"))
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	missing := slices.Clone(packages)
	name := ""
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if v, ok := strings.CutPrefix(lines.Text(), "Package: "); ok {
			name = v
		}
		if lines.Text() == "Status: install ok installed" {
			missing = slices.DeleteFunc(missing, func(p string) bool { return p == name })
		}
	}
	return lines.Err() == nil && len(missing) == 0
}

// bootstrap makes a root file system at dir, in the place of one that is there, as a
// whole or not at all.
func bootstrap(ctx context.Context, debootstrap, suite, mirror, dir string) (err error) {
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	temporary, err := os.MkdirTemp(parent, "."+suite+"-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temporary)) }()
	made := filepath.Join(temporary, "new") // that of MkdirTemp is root's alone
	args := []string{"--variant=minbase", "--include=" + strings.Join(packages, ","), suite, made}
	if mirror != "" {
		args = append(args, mirror)
	}
	log, err := os.Create(filepath.Join(parent, suite+"-debootstrap.log"))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	ctx, cancel := context.WithTimeout(ctx, bootstrapLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, debootstrap, args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := runGroup(cmd); err != nil {
		return fmt.Errorf("make a root file system of %s: %w (see %s; another mirror: DEBIAN_MIRROR)", suite, err, log.Name())
	}
	for _, pattern := range unneeded {
		paths, err := filepath.Glob(filepath.Join(made, pattern))
		if err != nil {
			return err
		}
		for _, path := range paths {
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
	}
	if !complete(made) {
		return fmt.Errorf("make a root file system of %s: not all of %v are installed (see %s)", suite, packages, log.Name())
	}
	if err := os.Rename(dir, filepath.Join(temporary, "old")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Rename(made, dir)
}

// findDebootstrap returns its path; where it can be installed, it is.
func findDebootstrap(ctx context.Context) (string, error) {
	const name = "debootstrap"
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	if _, noApt := exec.LookPath("apt-get"); noApt != nil {
		return "", fmt.Errorf("find %s, which makes root file systems of Debian: %w; install it", name, err)
	}
	say("installing %s", name)
	for _, args := range [][]string{{"update", "-q"}, {"install", "-q", "-y", "--no-install-recommends", name}} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := runGroup(cmd); err != nil {
			return "", fmt.Errorf("install %s: %w", name, err)
		}
	}
	return exec.LookPath(name)
}

// runGroup runs a command in a process group of its own, all of which gets SIGTERM when
// the context of the command is done, and a moment to clean up.
func runGroup(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	return cmd.Run()
}
