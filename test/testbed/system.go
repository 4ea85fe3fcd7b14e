package testbed

import (
	"crypto/rand"
	"fmt"
	"io/fs"
	"os"
	"path"
)

// unitDir is where [Testbed.Install] puts units, as an administrator would.
const unitDir = "/etc/systemd/system"

// prepareSystem turns the copy of somebody's machine into a system that boots
// in a moment: no unit of the machine is started but the journal and, on
// demand, D-Bus; the machine's configuration of systemd and what generators
// would make of its fstab are gone. What the distribution ships as units is
// still there to be started.
//
// All of it goes through an [os.Root], so that no mistake in here can reach the
// machine itself.
func prepareSystem(root *os.Root, hostname, managerConf string) error {
	if err := root.RemoveAll("etc/systemd"); err != nil {
		return err
	}
	for _, lib := range []string{"usr/local/lib/systemd", "usr/lib/systemd", "lib/systemd"} {
		// sysinit.target and its like want dozens of units by these links.
		wants, err := fs.Glob(root.FS(), lib+"/system/*.wants")
		if err != nil {
			return err
		}
		for _, dir := range append(wants, lib+"/system-generators", lib+"/system-environment-generators") {
			if err := root.RemoveAll(dir); err != nil {
				return err
			}
		}
	}
	files := map[string]string{
		"etc/machine-id": fmt.Sprintf("%x\n", randomID()),
		"etc/hostname":   hostname + "\n",
		"etc/fstab":      "",
		"run/systemd/system.conf.d/testbed.conf": "[Manager]\n" +
			"ShowStatus=no\nDefaultTimeoutStopSec=15s\n" + managerConf + "\n",
		// In memory, everything, and nothing of the host's.
		"run/systemd/journald.conf.d/testbed.conf": "[Journal]\n" +
			"Storage=volatile\nRuntimeMaxUse=64M\nRateLimitIntervalSec=0\n" +
			"ReadKMsg=no\nAudit=no\nForwardToSyslog=no\nForwardToWall=no\n",
	}
	for name, content := range files {
		if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
			return err
		}
		if err := root.RemoveAll(name); err != nil { // it may be a link
			return err
		}
		if err := root.WriteFile(name, []byte(content), 0o644); err != nil {
			return err
		}
	}
	return enable(root, map[string]string{
		"systemd-journald.service": "sysinit.target",
		"dbus.socket":              "sockets.target",
	})
}

// enable makes targets want units, as "systemctl enable" does.
func enable(root *os.Root, units map[string]string) error {
	for unit, target := range units {
		wants := path.Join(unitDir[1:], target+".wants")
		if err := root.MkdirAll(wants, 0o755); err != nil {
			return err
		}
		if err := root.Symlink("/lib/systemd/system/"+unit, path.Join(wants, unit)); err != nil {
			return err
		}
	}
	return nil
}

func randomID() (id [16]byte) {
	_, _ = rand.Read(id[:]) // never fails
	return id
}
