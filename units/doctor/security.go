package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/upgrade/control"
)

// Names of the findings of SELinux and AppArmor.
const (
	nameSELinux  = "selinux"
	nameAppArmor = "apparmor"
)

// enforcing reports whether SELinux refuses something.
func (s System) enforcing() (bool, error) {
	text, err := s.read("/sys/fs/selinux/enforce")
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return text == "1", err
}

// selinux says what SELinux makes of hdctl, which systemd executes for ExecReload=.
func (s System) selinux() []control.Check {
	on, err := s.enforcing()
	switch {
	case err != nil:
		return []control.Check{unseen(nameSELinux, err)}
	case !on && !s.exists("/sys/fs/selinux/enforce"):
		return []control.Check{good(nameSELinux, "there is none")}
	case !on:
		return []control.Check{good(nameSELinux, "permissive: it only logs what it would refuse")}
	case s.Hdctl == "":
		return []control.Check{good(nameSELinux, "enforcing")}
	}
	return []control.Check{s.labelled(s.Hdctl)}
}

// labelled looks at the label of a program that systemd executes. From the types of
// home directories, of /tmp and of no place at all it executes nothing: the service
// fails with status 203/EXEC, and its reload likewise.
func (s System) labelled(program string) control.Check {
	label, err := s.labelOf(program)
	if err != nil {
		return unseen(nameSELinux, fmt.Errorf("the label of %s: %w", program, s.shorten(err)))
	}
	kind := typeOf(label)
	for _, word := range []string{"user_home", "admin_home", "home_root", "tmp_t", "default_t", "unlabeled_t", "file_t", "var_t", "nfs_t"} {
		if kind == word || strings.HasPrefix(kind, word) || strings.HasSuffix(kind, "_"+word) {
			return fail(
				nameSELinux, fmt.Sprintf("restorecon -v %s, after it was moved to /usr/bin or /usr/local/bin; then ausearch -m avc -ts recent", program),
				"enforcing, and %s is labelled %s: systemd (init_t) may not execute it", program, kind,
			)
		}
	}
	return good(nameSELinux, "enforcing; %s is labelled %s", program, kind)
}

// labelOf returns the label of a file.
func (s System) labelOf(program string) (string, error) {
	if s.label != nil {
		return s.label(program)
	}
	buf := make([]byte, 512)
	n, err := unix.Getxattr(s.path(program), "security.selinux", buf)
	if err != nil {
		return "", err
	}
	return strings.TrimRight(string(buf[:n]), "\x00"), nil
}

// typeOf returns the type in USER:ROLE:TYPE:LEVEL.
func typeOf(label string) string {
	if f := strings.Split(label, ":"); len(f) >= 3 {
		return f[2]
	}
	return label
}

// apparmor says whether there are profiles; which one a service has is a matter of
// its process.
func (s System) apparmor() control.Check {
	const path = "/sys/kernel/security/apparmor/profiles"
	text, err := s.read(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return good(nameAppArmor, "there is none")
	case err != nil:
		return unseen(nameAppArmor, err)
	case text == "":
		return good(nameAppArmor, "no profiles are loaded")
	}
	enforced := strings.Count(text+"\n", "(enforce)\n")
	for line := range strings.Lines(text) {
		profile, mode, _ := cutLast(strings.TrimSpace(line), " (")
		if mode == "enforce)" && s.Hdctl != "" && (profile == s.Hdctl || profile == "hdctl") {
			return warn(
				nameAppArmor, "it must be allowed to connect to /run/handoff/*/control.sock; journalctl -k -g 'apparmor=\"DENIED\"'",
				"the profile %s is enforced for hdctl", profile,
			)
		}
	}
	return good(nameAppArmor, "%s enforced, none for hdctl", several(enforced, "profile"))
}

// confinement looks at what a process of a service, and those it starts, may do.
func (s System) confinement(pid int, program string) []control.Check {
	var checks []control.Check
	if on, err := s.enforcing(); err == nil && on && program != "" {
		checks = append(checks, s.labelled(program))
	}
	if !s.exists("/sys/kernel/security/apparmor/profiles") && !s.exists("/sys/module/apparmor/parameters/enabled") {
		return checks
	}
	// With SELinux as the other module, the first file is that one's.
	text, err := s.read(proc(pid, "attr/apparmor/current"))
	if errors.Is(err, fs.ErrNotExist) {
		text, err = s.read(proc(pid, "attr/current"))
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, os.ErrNotExist) {
		return checks // not active
	}
	if err != nil {
		return append(checks, unseen(nameAppArmor, err))
	}
	profile, mode, found := cutLast(strings.Trim(text, "\x00\n"), " (")
	if !found || mode != "enforce)" {
		return append(checks, good(nameAppArmor, "process %d is not confined", pid))
	}
	return append(checks, warn(
		nameAppArmor,
		fmt.Sprintf("the profile needs %s ix (or px), unix sockets of its own label with send and receive, and rw of its control socket; journalctl -k -g 'apparmor=\"DENIED\"' shows what was refused", program),
		"process %d is confined by the profile %s: it must be allowed to start the new version, and to pass sockets to it", pid, profile,
	))
}

// cutLast is strings.Cut at the last sep.
func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}
