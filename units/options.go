package units

import (
	"strconv"
	"strings"
	"time"
)

// The variables that package upgrade reads, as far as they are options here.
const (
	envReadyTimeout   = "HANDOFF_READY_TIMEOUT"
	envProbation      = "HANDOFF_PROBATION"
	envDrainTimeout   = "HANDOFF_DRAIN_TIMEOUT"
	envStopTimeout    = "HANDOFF_STOP_TIMEOUT"
	envMaxDraining    = "HANDOFF_MAX_DRAINING"
	envOperatorGroup  = "HANDOFF_OPERATOR_GROUP"
	envDrainDelay     = "HANDOFF_DRAIN_DELAY"
	envDrainSpread    = "HANDOFF_DRAIN_SPREAD"
	envHangTimeout    = "HANDOFF_HANG_TIMEOUT"
	envStoppedTimeout = "HANDOFF_STOPPED_TIMEOUT"
	envStageTimeout   = "HANDOFF_STAGE_TIMEOUT"
	envOverflow       = "HANDOFF_OVERFLOW"
	envCheck          = "HANDOFF_CHECK"
	envAllowBinary    = "HANDOFF_ALLOW_BINARY"
	envMigrate        = "HANDOFF_MIGRATE"
	envNotifyReload   = "HANDOFF_NOTIFY_RELOAD"
)

// option is one HANDOFF_* variable of a unit.
type option struct {
	Comment string
	name    string
	value   string
}

// Assignment is what Environment= is set to.
func (o option) Assignment() string { return assignment(Variable{o.name, o.value}) }

// options are the variables that the unit has. s has its defaults.
func (s Service) options() []option {
	var options []option
	add := func(comment, name, value string) {
		options = append(options, option{comment, name, value})
	}
	add("A new version must be ready within this time, or the old one goes on.", envReadyTimeout, goDuration(s.ReadyTimeout))
	add("Then the old version stands by for this time, and takes over again if the new one dies.", envProbation, goDuration(s.Probation))
	add("Then the old version may take this time to finish its open connections.", envDrainTimeout, goDuration(s.DrainTimeout))
	add("So many old versions may be at that at the same time.", envMaxDraining, strconv.Itoa(s.MaxDraining))
	add("When the service stops, open connections may take this time.", envStopTimeout, goDuration(s.StopTimeout))

	duration := func(comment, name string, d time.Duration) {
		if d != 0 {
			add(comment, name, goDuration(d))
		}
	}
	if s.OperatorGroup != "" {
		add("Members of this group may upgrade the service.", envOperatorGroup, s.OperatorGroup)
	}
	duration("Long connections of an old version are left alone for this time,", envDrainDelay, s.DrainDelay)
	duration("and are told to say goodbye at random moments of this time.", envDrainSpread, s.DrainSpread)
	duration("In probation a new version that hangs for this time has failed.", envHangTimeout, s.HangTimeout)
	duration("Later one that is stopped (SIGSTOP) for this time is replaced by an old one, if that still\ndrains. Shorter than the watchdog, at which all would be killed.", envStoppedTimeout, s.StoppedTimeout)
	duration("A staged upgrade without a decision is rolled back after this time.", envStageTimeout, s.StageTimeout)
	if s.Overflow != "" {
		add("What becomes of an upgrade while as many old versions drain as may: the oldest has to\nfinish (hurry-oldest), or there is none (refuse).", envOverflow, string(s.Overflow))
	}
	if len(s.Check) > 0 {
		add("This command must succeed before a new version is started; %b is its program. What it\ntakes counts towards the time for getting ready.", envCheck, strings.Join(s.Check, " "))
	}
	if s.AllowBinary {
		add(`Operators may upgrade to another program ("hdctl upgrade --binary").`, envAllowBinary, "on")
	}
	if s.NoMigration {
		add("Idle connections stay with the version that accepted them, and end with it.", envMigrate, "off")
	}
	if s.NotifyReload {
		add("SIGHUP is systemd's request to reload, and the service tells it when that is done.", envNotifyReload, "on")
	}
	return options
}
