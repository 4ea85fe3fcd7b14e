package doctor

import (
	"debug/buildinfo"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/hdctl/handoff/upgrade/control"
)

// libraries compares the versions of the library in all generations with that of
// hdctl. Each generation speaks with its neighbours and with hdctl; both sides can
// speak older versions of the protocol, but what the older one cannot do is not done.
func (s System) libraries(st *control.Status) []control.Check {
	const name = "library"
	var checks []control.Check
	switch {
	case st.APIVersion > control.APIVersion:
		checks = append(checks, warn(
			name, "update hdctl",
			"the service speaks version %d of the control API (library %s), this hdctl only %d", st.APIVersion, version(st.Library), control.APIVersion,
		))
	case older(s.Version, st.Library):
		checks = append(checks, warn(name, "update hdctl", "hdctl has version %s of the library, the service has %s", s.Version, st.Library))
	case older(st.Library, s.Version) || st.APIVersion != 0 && st.APIVersion < control.APIVersion:
		checks = append(checks, warn(
			name, "build the service with the newer library; the first upgrade to it hands off as the old one can",
			"the running service has version %s of the library, hdctl has %s", version(st.Library), version(s.Version),
		))
	}
	for _, g := range st.Generations {
		if g.Number == st.Main || g.PID == 0 {
			continue
		}
		v, err := s.libraryOf(g.PID)
		switch {
		case errors.Is(err, fs.ErrNotExist): // it has just ended
		case err != nil:
			checks = append(checks, unseen(name, fmt.Errorf("the library of generation %d (pid %d): %w", g.Number, g.PID, err)))
		case older(v, st.Library):
			checks = append(checks, warn(
				name, "nothing to do: it ends with its drain",
				"generation %d (pid %d), which is %s, has version %s of the library, the main one %s", g.Number, g.PID, g.State, v, version(st.Library),
			))
		}
	}
	if len(checks) == 0 {
		checks = append(checks, good(name, "version %s of the library", version(st.Library)))
	}
	return checks
}

// libraryOf reads the version of the library out of the program of a process; it
// need not be on disk any more. "" is a program without it.
func (s System) libraryOf(pid int) (string, error) {
	info, err := buildinfo.ReadFile(s.path(proc(pid, "exe")))
	if err != nil {
		return "", s.shorten(err)
	}
	version, _ := control.LibraryIn(info)
	return version, nil
}

// version is a version for people.
func version(v string) string {
	if v == "" {
		return "(unknown)"
	}
	return v
}

// older reports whether version a comes before b, where both are versions of a
// release. Builds from a working copy are not compared.
func older(a, b string) bool {
	x, okA := parseVersion(a)
	y, okB := parseVersion(b)
	if !okA || !okB {
		return false
	}
	for i := range x {
		if x[i] != y[i] {
			return x[i] < y[i]
		}
	}
	return false
}

// parseVersion reads vMAJOR.MINOR.PATCH; what follows after "-" or "+" makes it no
// release.
func parseVersion(v string) (n [3]int, ok bool) {
	v, ok = strings.CutPrefix(v, "v")
	parts := strings.Split(v, ".")
	if !ok || len(parts) != len(n) {
		return n, false
	}
	for i, p := range parts {
		var err error
		if n[i], err = strconv.Atoi(p); err != nil {
			return n, false
		}
	}
	return n, true
}
