package units

import (
	"errors"
	"fmt"
	"time"
)

// The deadlines of a service are nested: each is longer than what it contains, so
// that who is nearest to a problem answers first, and with its reason.
//
//	Check < ReadyTimeout                               the old version gives up on the new one
//	ReadyTimeout + Probation + 10 s                    it gives up on the upgrade
//	                         + 15 s < TimeoutStartSec= systemd gives up on the reload
//	StopTimeout + 5 s = TimeoutStopSec=                systemd kills what has not ended
//	HangTimeout < Probation                            a hang is found while the old version stands by
//	StoppedTimeout < WatchdogSec=                      the old version takes over before systemd kills all
//	DrainDelay < DrainTimeout                          clients are told before they are cut
const (
	// ConfirmMargin is what package upgrade adds to ReadyTimeout and Probation
	// to get its own limit of an upgrade: time to tell systemd, above all.
	ConfirmMargin = 10 * time.Second

	// reloadMargin is between that limit and the one at which systemd kills
	// ExecReload=: the answer must always come first.
	reloadMargin = 15 * time.Second

	minTimeoutStart = 90 * time.Second // systemd's own default
	stopMargin      = 5 * time.Second

	// defaultStopped is what package upgrade has for StoppedTimeout.
	defaultStopped = 5 * time.Second
)

// timeoutStart is TimeoutStartSec=, which limits a reload as well.
func (s Service) timeoutStart() time.Duration {
	upgrade := max(s.ReadyTimeout, 0) + max(s.Probation, 0) + ConfirmMargin
	return max(upgrade+reloadMargin, minTimeoutStart)
}

// timeoutStop is TimeoutStopSec=.
func (s Service) timeoutStop() time.Duration { return s.StopTimeout + stopMargin }

// stoppedTimeout is StoppedTimeout, or half of a watchdog that would be faster than
// its default: systemd would kill the old version that could take over.
func (s Service) stoppedTimeout() time.Duration {
	if s.StoppedTimeout == 0 && s.Watchdog > 0 && s.Watchdog <= defaultStopped {
		return s.Watchdog / 2
	}
	return s.StoppedTimeout
}

// checkNesting says which of the deadlines are not nested.
func (s Service) checkNesting() error {
	var errs []error
	shorter := func(what string, d time.Duration, than string, limit time.Duration, why string) {
		if d > 0 && limit > 0 && d >= limit {
			errs = append(errs, fmt.Errorf("%s %v: not shorter than the %s %v: %s", what, d, than, limit, why))
		}
	}
	shorter("hang timeout", s.HangTimeout, "probation", s.Probation, "a hang would be found when the old version stands by no more")
	shorter("stopped timeout", s.StoppedTimeout, "watchdog", s.Watchdog, "systemd would kill the old version before it takes over")
	shorter("drain delay", s.DrainDelay, "drain timeout", s.DrainTimeout, "connections would be cut without a goodbye")
	return errors.Join(errs...)
}
