package testbed

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// RequireEnv and the usual CI are the environment variables that make [Boot]
// fail where it would otherwise skip the test: in a place where the tests must
// run, a skipped one is a bug.
const RequireEnv = "HANDOFF_REQUIRE_SYSTEMD"

// RootfsEnv is the environment variable with the default of [Options.Rootfs].
// The same tests run against several versions of systemd with it.
const RootfsEnv = "HANDOFF_TESTBED_ROOTFS"

// Available returns nil if a testbed of the default [Options] can boot here, as
// far as one can tell without doing it, and otherwise says what is missing.
func Available() error {
	return available(os.Getenv(RootfsEnv))
}

func available(rootfs string) error {
	var missing []error
	if os.Geteuid() != 0 {
		missing = append(missing, errors.New("not root"))
	}
	if _, err := systemd(rootfs); err != nil {
		missing = append(missing, err)
	}
	for _, program := range []string{"sh", "find", "mount", "nsenter", "rm", "rmdir", "sleep"} {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, fmt.Errorf("no program %s", program))
		}
	}
	// The first thing that a testbed needs, and what a root user without
	// CAP_SYS_ADMIN cannot do.
	if root, err := cgroupRoot(); err == nil {
		_ = root.Close()
	} else if os.Geteuid() == 0 {
		missing = append(missing, err)
	}
	return errors.Join(missing...)
}

// systemd returns the path, below rootfs, of the program that becomes PID 1.
func systemd(rootfs string) (string, error) {
	if rootfs == "" {
		rootfs = "/"
	}
	for _, path := range []string{"/usr/lib/systemd/systemd", "/lib/systemd/systemd"} {
		if unix.Access(filepath.Join(rootfs, path), unix.X_OK) == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("no systemd in %s", rootfs)
}

// required tells whether a testbed that is not available is a failure.
func required() bool {
	for _, name := range []string{RequireEnv, "CI"} {
		switch os.Getenv(name) {
		case "", "0", "false":
		default:
			return true
		}
	}
	return false
}
