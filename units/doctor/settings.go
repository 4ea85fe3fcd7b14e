package doctor

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/hdctl/handoff/units"
	"github.com/hdctl/handoff/upgrade/control"
)

// deadlines compares the times of the unit with those of the service.
func deadlines(v map[string]string, st *control.Status) []control.Check {
	if st == nil {
		return nil
	}
	o := st.Options
	var checks []control.Check
	seconds := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	longest := seconds(o.ReadyTimeout) + seconds(o.Probation) + units.ConfirmMargin
	if limit, ok := units.ParseSpan(v["TimeoutStartUSec"]); ok && limit > 0 && limit <= longest {
		checks = append(checks, fail(
			"deadlines", fmt.Sprintf("TimeoutStartSec=%d", int((longest+15*time.Second).Seconds())),
			"TimeoutStartSec=%s, and an upgrade may take %v: systemd kills the ExecReload= before it has the answer", v["TimeoutStartUSec"], longest,
		))
	}
	if limit, ok := units.ParseSpan(v["TimeoutStopUSec"]); ok && limit > 0 && o.StopTimeout > 0 && limit <= seconds(o.StopTimeout) {
		checks = append(checks, warn(
			"deadlines", fmt.Sprintf("TimeoutStopSec=%d", int(o.StopTimeout)+5),
			"TimeoutStopSec=%s, and a stop may take %s: systemd kills the service before it has said goodbye", v["TimeoutStopUSec"], brief(o.StopTimeout),
		))
	}
	if watchdog, ok := units.ParseSpan(v["WatchdogUSec"]); ok && watchdog > 0 && watchdog != units.Infinity && o.Watchdog == 0 {
		checks = append(checks, fail(
			"deadlines", "systemctl restart "+v["Id"]+"; a WatchdogSec= that was added later is not known to a process that runs",
			"WatchdogSec=%s, and the service does not know of it: systemd may kill it", v["WatchdogUSec"],
		))
	}
	if len(checks) == 0 {
		checks = append(checks, good("deadlines", "the times of the unit leave room for those of the service: %v for an upgrade, %s for a stop", longest, brief(o.StopTimeout)))
	}
	return checks
}

// commands looks at the programs of ExecReload= and ExecStop=: nobody else runs them,
// so that one which is missing is not noticed before it is needed.
func (s System) commands(v map[string]string) []control.Check {
	checks := s.command("reload", "ExecReload", v["ExecReload"], "every reload fails")
	return append(checks, s.command("stop", "ExecStop", v["ExecStop"], "a stop kills a service that was upgraded, and cuts its connections")...)
}

// command looks at a command: "{ path=P ; argv[]=A B C ; ignore_errors=no ; … }".
func (s System) command(name, setting, value, harm string) []control.Check {
	rest, ok := strings.CutPrefix(value, "{ path=")
	if !ok {
		return nil // that there should be one is a matter of the unit
	}
	program, _, _ := strings.Cut(rest, " ; argv[]=")
	info, err := os.Stat(s.path(program))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return []control.Check{fail(name, "install it there, or correct "+setting+"=", "%s= runs %s, which is not there: %s", setting, program, harm)}
	case err != nil:
		return []control.Check{unseen(name, s.shorten(err))}
	case info.Mode().Perm()&0o111 == 0:
		return []control.Check{fail(name, "chmod +x "+program, "%s= runs %s, which is not executable: %s", setting, program, harm)}
	case !strings.HasSuffix(program, "/hdctl") || s.Hdctl == "":
		return []control.Check{good(name, "%s= runs %s, which is there", setting, program)}
	}
	if own, err := os.Stat(s.path(s.Hdctl)); err == nil && !os.SameFile(own, info) && own.Size() != info.Size() {
		return []control.Check{warn(name, "install one hdctl only", "%s= runs %s, which is another program than the hdctl that you use, %s", setting, program, s.Hdctl)}
	}
	return []control.Check{good(name, "%s= runs %s, which is there", setting, program)}
}
