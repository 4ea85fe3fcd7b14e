package units

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Finding is what [Drift] says of one matter.
type Finding struct {
	Name    string // unit, program, environment, limits, user
	Result  string // ok, warning
	Message string // a sentence
	Hint    string // what can be done, or ""
}

// Values of [Finding.Result].
const (
	FindingOK      = "ok"
	FindingWarning = "warning"
)

// hintRestart is for what only a process gets that systemd starts.
const hintRestart = "an upgrade does not apply it: the new process inherits from the old one; systemctl restart does"

// Drift compares the unit of a service, as a restart would apply it, with the
// process pid that runs. A service whose processes start each other goes on with
// what systemd gave to the first of them: after an edit of the unit, and a
// daemon-reload, an upgrade starts the new program with the old environment, the
// old limits, the old arguments and the old user. Drift finds:
//
//   - unit: files that were changed and not loaded (NeedDaemonReload=).
//   - program: ExecStart=, the path and the arguments.
//   - environment: Environment=, EnvironmentFile= and UnsetEnvironment=. Only the
//     names of variables are told, since a value may be a secret.
//   - limits: LimitNOFILE= and the others.
//   - user: User= and Group=.
//
// Other settings, such as those of the sandbox, leave no trace in the process that
// could be compared. There the finding "unit" tells, without a warning, that files
// have changed since systemd started the service.
//
// show is asked for the properties; see [Systemctl]. The caller must be allowed to
// look into the process (ptrace(2), "PTRACE_MODE_READ"), and at the unit's files:
// what it cannot see is a warning. The error is that of show, or says that there
// is no such unit or process.
func Drift(ctx context.Context, unit string, pid int, show Show) ([]Finding, error) {
	values, err := show(ctx, unit, driftProperties()...)
	if err != nil {
		return nil, fmt.Errorf("ask systemd about %s: %w", unit, err)
	}
	if state := values["LoadState"]; state == "not-found" {
		return nil, fmt.Errorf("systemd does not know %s", unit)
	}
	// Not fatal: without it, a few variables are not understood.
	manager, err := show(ctx, "", "Environment")
	if err != nil {
		manager = nil
	}
	p := process(pid)
	if _, err := os.Stat(p.file("")); err != nil {
		return nil, fmt.Errorf("look at process %d: %w", pid, err)
	}
	u := loaded{name: unit, values: values, manager: manager["Environment"]}
	environment, expected := driftOfEnvironment(u, p)
	return []Finding{
		driftOfUnit(u),
		driftOfProgram(u, p, expected),
		environment,
		driftOfLimits(u, p),
		driftOfUser(u, p),
	}, nil
}

// driftProperties are the properties that Drift needs.
func driftProperties() []string {
	properties := []string{
		"LoadState", "NeedDaemonReload", "FragmentPath", "DropInPaths", "InactiveExitTimestampMonotonic",
		"ExecStart",
		"Environment", "EnvironmentFiles", "PassEnvironment", "UnsetEnvironment", "PAMName",
		"User", "Group", "DynamicUser", "UID",
	}
	for _, limit := range resourceLimits {
		properties = append(properties, limit.property, limit.property+"Soft")
	}
	return properties
}

// loaded is a unit as systemd has it.
type loaded struct {
	name    string
	values  map[string]string // properties
	manager string            // Environment of the manager
}

// driftOfUnit compares the files of the unit with what systemd has loaded.
func driftOfUnit(u loaded) Finding {
	const name = "unit"
	if u.values["NeedDaemonReload"] == "yes" {
		return Finding{
			name, FindingWarning,
			"the files of " + u.name + " were changed, and systemd has not loaded them",
			"systemctl daemon-reload; then check again",
		}
	}
	started, ok := u.started()
	if !ok {
		return Finding{name, FindingOK, "systemd has loaded the files of " + u.name + " as they are", ""}
	}
	var changed []string
	for _, path := range append(words(u.values["DropInPaths"]), u.values["FragmentPath"]) {
		var st unix.Stat_t
		// Not the time of its content: a package brings its own.
		if path != "" && unix.Stat(path, &st) == nil && time.Unix(st.Ctim.Unix()).After(started) {
			changed = append(changed, path)
		}
	}
	if len(changed) > 0 {
		return Finding{
			name, FindingOK,
			fmt.Sprintf("systemd has loaded the files of %s as they are, but %s changed after the service was started (%s)",
				u.name, strings.Join(changed, ", "), started.Format(time.DateTime)),
			"only a restart applies what is not compared here, such as the sandbox",
		}
	}
	return Finding{name, FindingOK, "the files of " + u.name + " are those with which the service was started", ""}
}

// started is when systemd has started the service; upgrades do not count. Time in
// which the machine was suspended is left out, so that it can be too late.
func (u loaded) started() (time.Time, bool) {
	usec, err := strconv.ParseInt(u.values["InactiveExitTimestampMonotonic"], 10, 64)
	var now unix.Timespec
	if err != nil || usec <= 0 || unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) != nil {
		return time.Time{}, false
	}
	ago := time.Duration(now.Nano()) - time.Duration(usec)*time.Microsecond
	return time.Now().Add(-ago), true
}

// unseen is the finding where something cannot be compared.
func unseen(name string, err error) Finding {
	return Finding{name, FindingWarning, fmt.Sprintf("not compared: %v", err), "ask as root, or as the user of the service"}
}
