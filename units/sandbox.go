package units

import (
	"fmt"
	"strings"
)

// setting is a line of a unit, with the comment above it.
type setting struct {
	Comment string // "" belongs to the one above
	Line    string // NAME=VALUE

	since int  // version of systemd that has it; 0: all from MinSystemd on
	user  bool // the manager of a user can do it as well
}

// Sandbox returns the settings of [Strict], as NAME=VALUE; none for [Plain].
//
// What an upgrade needs is left open: sockets of AF_UNIX (for systemd, and between
// old and new version), signals to and pidfds of the service's own processes,
// /proc of the same, and memory that they share. "systemd-analyze security" calls
// that an exposure of 1.2, and of 1.6 with an operator group, which costs two of the
// settings: that group must exist inside, and the service gives it a file.
//
// The manager of a user has no privileges, and can do only what a process can do to
// itself: filters of system calls.
func (s Service) Sandbox() []string {
	var lines []string
	for _, set := range s.withDefaults().sandbox() {
		lines = append(lines, set.Line)
	}
	return lines
}

func (s Service) sandbox() []setting {
	if s.Profile != Strict {
		return nil
	}
	operators := s.OperatorGroup != ""
	all := []setting{
		{Comment: "Nothing that it starts gets more rights than it has itself.", Line: "NoNewPrivileges=yes", user: true},
		{Comment: "No right of root, whoever it runs as. A port below 1024 needs none: systemd opens it.", Line: "CapabilityBoundingSet="},
		{Line: "AmbientCapabilities="},
		{Comment: "All files are read-only but those of StateDirectory=, RuntimeDirectory= and /tmp. For\nmore use CacheDirectory=, LogsDirectory= or ReadWritePaths=.", Line: "ProtectSystem=strict"},
		{Comment: "Nobody's home directory is there, and /tmp is its own. Old and new versions share it.", Line: "ProtectHome=yes"},
		{Line: "PrivateTmp=yes"},
		{Comment: "Mounts of the service stay its own.", Line: "PrivateMounts=yes"},
		{Comment: "Of the devices only /dev/null, /dev/random and the like.", Line: "PrivateDevices=yes"},
		{Line: "DevicePolicy=closed"},
	}
	if !operators {
		// A group from outside would be nobody's inside.
		all = append(all, setting{Comment: "Of the users and groups it sees root and its own.", Line: "PrivateUsers=yes"})
	}
	all = append(all, []setting{
		{Comment: "System V IPC and POSIX message queues are its own, and go with the service.", Line: "PrivateIPC=yes", since: 248},
		{Line: "RemoveIPC=yes"},
		{Comment: "In /proc only its own processes, and nothing about the machine. Old and new versions\nsee each other, which they need for an upgrade.", Line: "ProtectProc=invisible"},
		{Line: "ProcSubset=pid"},
		{Comment: "Kernel, clock, host name and cgroups cannot be changed.", Line: "ProtectKernelTunables=yes"},
		{Line: "ProtectKernelModules=yes"},
		{Line: "ProtectKernelLogs=yes"},
		{Line: "ProtectClock=yes"},
		{Line: "ProtectHostname=yes"},
		{Line: "ProtectControlGroups=" + s.controlGroups()},
		{Line: "PrivateBPF=yes", since: 258},
		{Comment: s.familiesComment(), Line: "RestrictAddressFamilies=" + s.families(), user: true},
		{Comment: "No namespaces, no real-time scheduling, no set-user-ID files, no foreign ABI.", Line: "RestrictNamespaces=yes", user: true},
		{Line: "RestrictRealtime=yes", user: true},
		{Line: "RestrictSUIDSGID=yes", user: true},
		{Line: "LockPersonality=yes", user: true},
		{Line: "SystemCallArchitectures=native", user: true},
		{Comment: "No memory that can be both written and executed. Remove this for a program that\ncompiles at run time, as Java and JavaScript do.", Line: "MemoryDenyWriteExecute=yes", user: true},
		{Comment: "The system calls of an ordinary service, without those that need privileges or change\nlimits and priorities; the others fail as not permitted.", Line: "SystemCallFilter=@system-service", user: true},
		{Line: "SystemCallFilter=~@privileged @resources", user: true},
	}...)
	if operators {
		all = append(all, setting{Comment: "But this: the service gives the control socket to its operators.", Line: "SystemCallFilter=@chown", user: true})
	}
	all = append(all, []setting{
		{Line: "SystemCallErrorNumber=EPERM", user: true},
		{Comment: "What it creates is for itself alone. (The control socket says itself who may use it.)", Line: "UMask=0077", user: true},
	}...)
	var known []setting
	for _, set := range all {
		if set.since <= s.Systemd && (set.user || !s.UserManager) {
			known = append(known, set)
		}
	}
	return known
}

// controlGroups is what ProtectControlGroups= is set to: read-only, and if possible
// without those of others.
func (s Service) controlGroups() string {
	if s.Systemd >= 257 {
		return "strict"
	}
	return "yes"
}

// families is what RestrictAddressFamilies= allows.
func (s Service) families() string {
	if s.onlyUnix() {
		return "AF_UNIX"
	}
	return "AF_UNIX AF_INET AF_INET6"
}

func (s Service) familiesComment() string {
	if s.onlyUnix() {
		return "Sockets of these kinds only. AF_UNIX is for systemd and the next version, too. Add\nAF_INET and AF_INET6 if the service calls others over the network."
	}
	return "Sockets of these kinds only. AF_UNIX is for systemd and the next version, too."
}

// onlyUnix tells whether all sockets of the service are unix sockets.
func (s Service) onlyUnix() bool {
	for _, sock := range s.Sockets {
		for _, l := range sock.Listen {
			if !l.unix() {
				return false
			}
		}
	}
	return true
}

// hidden are directories that the sandbox takes away or replaces.
var hidden = [...]string{"/home", "/root", "/run/user", "/tmp", "/var/tmp", "/dev/shm"}

// checkSandbox refuses programs that the sandbox would hide from systemd.
func (s Service) checkSandbox() error {
	switch s.Profile {
	case Plain:
		return nil
	case Strict:
	default:
		return fmt.Errorf("profile %q: neither %s nor %s", s.Profile, Plain, Strict)
	}
	if s.User == "root" || s.User == "0" {
		return fmt.Errorf("profile %s: not for user root, which can do without its permission", s.Profile)
	}
	if s.UserManager {
		return nil
	}
	for _, p := range []string{s.Exec, s.Hdctl} {
		for _, dir := range hidden {
			if strings.HasPrefix(p, dir+"/") {
				return fmt.Errorf("profile %s: hides %s, so that %s would not be found: install it in /usr", s.Profile, dir, p)
			}
		}
	}
	return nil
}
