package doctor

import (
	"errors"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/hdctl/handoff/upgrade/control"
)

// Files of needrestart and apt.
const (
	needrestartConf = "/etc/needrestart/needrestart.conf"
	needrestartDir  = "/etc/needrestart/conf.d"
	aptDir          = "/etc/apt/apt.conf.d"

	// snippetMark is what the snippet that comes with hdctl has in it, and no other
	// file of needrestart.
	snippetMark = "/run/handoff"
)

// automaticRestart is how needrestart is told not to ask.
var automaticRestart = regexp.MustCompile(`(?m)^\s*\$nrconf\{['"]?restart['"]?\}\s*=\s*['"]a['"]`)

// needrestart looks whether needrestart, which restarts services whose libraries
// were replaced, leaves alone those that hand off.
func (s System) needrestart() control.Check {
	const name = "needrestart"
	conf, err := s.read(needrestartConf)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return good(name, "it is not installed")
	case err != nil:
		return unseen(name, err)
	}
	automatic, snippet := automaticRestart.MatchString(conf), false
	paths, _ := filepath.Glob(s.path(needrestartDir + "/*.conf"))
	for _, path := range paths {
		text, err := s.read(filepath.Join(needrestartDir, filepath.Base(path)))
		if err != nil {
			return unseen(name, err)
		}
		snippet = snippet || strings.Contains(withoutComments(text, "#"), snippetMark)
		automatic = automatic || automaticRestart.MatchString(text)
	}
	const hint = "install packaging/needrestart/handoff.conf as " + needrestartDir + "/handoff.conf"
	switch {
	case snippet:
		return good(name, "it leaves services alone that hand off")
	case automatic:
		return fail(name, hint, "it restarts services by itself when a library was replaced, those that hand off too")
	}
	return warn(name, hint, "it offers to restart services when a library was replaced, those that hand off too")
}

// unattendedOn is the setting that has apt install upgrades by itself.
var unattendedOn = regexp.MustCompile(`(?m)^\s*APT::Periodic::Unattended-Upgrade\s+"?([0-9]+)"?\s*;`)

// unattended looks whether packages are upgraded while nobody looks.
func (s System) unattended() []control.Check {
	const name = "unattended-upgrades"
	if !s.exists("/usr/bin/unattended-upgrade") && !s.exists("/usr/bin/unattended-upgrades") {
		return nil
	}
	paths, err := filepath.Glob(s.path(aptDir + "/*"))
	if err != nil {
		return []control.Check{unseen(name, err)}
	}
	on := false
	for _, path := range paths { // sorted; the last one counts
		text, err := s.read(filepath.Join(aptDir, filepath.Base(path)))
		if err != nil {
			return []control.Check{unseen(name, err)}
		}
		for _, m := range unattendedOn.FindAllStringSubmatch(withoutComments(text, "//"), -1) {
			on = m[1] != "0"
		}
	}
	switch {
	case !on:
		return []control.Check{good(name, "it is installed, but not switched on")}
	case s.needrestart().Result == control.CheckOK:
		return []control.Check{good(name, "packages are upgraded by themselves: one that reloads its service hands off, and waits for nobody")}
	}
	return []control.Check{warn(
		name, "see needrestart above; and HANDOFF_PACKAGE_UPGRADE=manual in /etc/default/NAME keeps the package of a service from upgrading it",
		"packages are upgraded by themselves, and then needrestart restarts services while nobody looks",
	)}
}

// withoutComments drops the lines that begin with mark.
func withoutComments(text, mark string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(strings.TrimSpace(line), mark) {
			out.WriteString(line)
		}
	}
	return out.String()
}

// killsProcesses is how logind is told to end all that a user has left behind.
var killsProcesses = regexp.MustCompile(`(?m)^\s*KillUserProcesses\s*=\s*(yes|true|on|1)\s*$`)

// lingering looks whether the services of a user outlive his login.
func (s System) lingering() control.Check {
	const name = "linger"
	if s.UserName == "" {
		return warn(name, "loginctl enable-linger", "not looked at: the name of the user is not known")
	}
	if s.exists("/var/lib/systemd/linger/" + s.UserName) {
		return good(name, "the services of %s go on after a logout", s.UserName)
	}
	kills := ""
	paths, _ := filepath.Glob(s.path("/etc/systemd/logind.conf.d/*.conf"))
	for _, path := range append(paths, s.path("/etc/systemd/logind.conf")) {
		rel := strings.TrimPrefix(path, strings.TrimSuffix(s.path("/"), "/"))
		if text, err := s.read(rel); err == nil && killsProcesses.MatchString(text) {
			kills = ", and logind kills what is left (KillUserProcesses=)"
		}
	}
	return warn(
		name, "loginctl enable-linger "+s.UserName,
		"the service manager of %s ends with the last login, and all services with it%s", s.UserName, kills,
	)
}
