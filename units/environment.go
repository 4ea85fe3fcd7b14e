package units

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// driftOfEnvironment compares the variables of p with those that systemd would
// give to a new process. It returns these, too, as far as they are known.
func driftOfEnvironment(u loaded, p process) (Finding, map[string]string) {
	const name = "environment"
	expected, err := u.environment()
	list, listErr := p.list("environ")
	if listErr != nil {
		return unseen(name, listErr), expected
	}
	actual := assignments(list)
	for key, value := range actual {
		// Those that systemd sets by itself are a matter of the process.
		if _, ok := expected[key]; !ok && bySystemd(key) {
			expected[key] = value
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Finding{name, FindingWarning, fmt.Sprintf("%s has an EnvironmentFile= that is not there: %v", u.name, err), "a restart would fail"}, expected
	case err != nil:
		return unseen(name, err), expected
	}

	var added, changed, removed []string
	for key, value := range expected {
		switch now, ok := actual[key]; {
		case !ok:
			added = append(added, key)
		case now != value:
			changed = append(changed, key)
		}
	}
	passed := words(u.values["PassEnvironment"]) // from the environment of PID 1
	for key := range actual {
		_, ok := expected[key]
		if !ok && !slices.Contains(passed, key) && u.values["PAMName"] == "" {
			removed = append(removed, key)
		}
	}
	var parts []string
	for _, part := range []struct {
		what string
		keys []string
	}{{"added", added}, {"changed", changed}, {"removed", removed}} {
		if len(part.keys) > 0 {
			slices.Sort(part.keys)
			parts = append(parts, part.what+": "+strings.Join(part.keys, ", "))
		}
	}
	if len(parts) > 0 {
		return Finding{
			name, FindingWarning,
			fmt.Sprintf("%s would start with other variables than process %d has; %s", u.name, p, strings.Join(parts, "; ")),
			hintRestart,
		}, expected
	}
	return Finding{name, FindingOK, fmt.Sprintf("process %d has the variables of %s", p, u.name), ""}, expected
}

// environment returns the variables of a new process, as far as the unit and the
// manager determine them. The order is that of systemd.exec(5), "Environment
// Variables in Spawned Processes". The error names a file that cannot be read; what
// is known is returned all the same.
func (u loaded) environment() (map[string]string, error) {
	expected := assignments(words(u.manager))
	maps.DeleteFunc(expected, func(key, _ string) bool { return bySystemd(key) })
	for key, value := range assignments(words(u.values["Environment"])) {
		expected[key] = value
	}
	var errs []error
	for line := range strings.Lines(u.values["EnvironmentFiles"]) {
		pattern, flag, ok := cutLast(strings.TrimSuffix(line, "\n"), " (ignore_errors=")
		if !ok {
			continue
		}
		err := readEnvironment(pattern, expected)
		if err != nil && (flag == "no)" || !errors.Is(err, fs.ErrNotExist)) {
			errs = append(errs, err)
		}
	}
	for _, word := range words(u.values["UnsetEnvironment"]) {
		key, value, exact := strings.Cut(word, "=")
		if !exact || expected[key] == value {
			delete(expected, key)
		}
	}
	return expected, errors.Join(errs...)
}

// readEnvironment adds the variables of the files of an EnvironmentFile= setting.
func readEnvironment(pattern string, to map[string]string) error {
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		paths = []string{pattern} // for the error
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		parseEnvironment(string(text), to)
	}
	return nil
}

// assignments makes a map of NAME=VALUE, of which the last one counts. It leaves
// out names that systemd would not accept.
func assignments(list []string) map[string]string {
	variables := make(map[string]string, len(list))
	for _, a := range list {
		if key, value, ok := strings.Cut(a, "="); ok && isVariable(key) {
			variables[key] = value
		}
	}
	return variables
}

// isVariable reports whether s is the name of a variable: systemd.exec(5),
// "Environment=".
func isVariable(s string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"
	return s != "" && strings.Trim(s, letters+"0123456789") == "" && strings.ContainsRune(letters, rune(s[0]))
}

// bySystemd reports whether the variable, where the unit does not set it, is set
// for each process anew, by systemd, by this library, or by a shell.
func bySystemd(key string) bool {
	switch key {
	case "PATH", "LANG", "USER", "LOGNAME", "HOME", "SHELL", "TERM", "COLORTERM", "NO_COLOR",
		"INVOCATION_ID", "JOURNAL_STREAM", "LOG_NAMESPACE", "DEBUG_INVOCATION", "NOTIFY_SOCKET", "FDSTORE",
		"MAINPID", "MANAGERPID", "MANAGERPIDFDID", "PIDFILE", "WATCHDOG_PID", "WATCHDOG_USEC",
		"XDG_RUNTIME_DIR", "XDG_SESSION_ID", "XDG_SEAT", "XDG_VTNR", "CREDENTIALS_DIRECTORY",
		"RUNTIME_DIRECTORY", "STATE_DIRECTORY", "CACHE_DIRECTORY", "LOGS_DIRECTORY", "CONFIGURATION_DIRECTORY",
		"REMOTE_ADDR", "REMOTE_PORT",
		"TABLEFLIP_HAS_PARENT_7DIU3",
		"PWD", "OLDPWD", "SHLVL", "_":
		return true
	}
	for _, prefix := range []string{"LISTEN_", "SYSTEMD_", "MEMORY_PRESSURE_", "TRIGGER_", "LC_"} {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}

// cutLast is strings.Cut at the last sep.
func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}
