package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/hdctl/handoff/upgrade/control"
)

// The exit statuses of hdctl. They are documented in hdctl(1), and scripts rely
// on them.
const (
	exitOK         = 0
	exitFailed     = 1  // failed, the old generation still serves
	exitUsage      = 2  // the command line is wrong
	exitNotRunning = 3  // the service is not running
	exitNoService  = 4  // no such service
	exitPermission = 5  // permission denied
	exitTimedOut   = 6  // timed out, the old generation still serves
	exitRefused    = 7  // one is in progress, upgrades are paused, the service is not ready, or it cannot be done
	exitCut        = 8  // upgraded, but connections were cut
	exitUnknown    = 9  // not answering, outcome unknown
	exitNobody     = 10 // failed, and nobody serves
)

// exitError is how a verb ends other than well.
type exitError struct {
	code int
	err  error    // nil: all has been said
	more []string // lines under the error: what the new process printed
	hint string
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// exitf makes an exitError.
func exitf(code int, format string, args ...any) *exitError {
	return &exitError{code: code, err: fmt.Errorf(format, args...)}
}

// withHint returns e with a hint.
func (e *exitError) withHint(format string, args ...any) *exitError {
	e.hint = fmt.Sprintf(format, args...)
	return e
}

// exitCode is an end without words: the output has said it all.
func exitCode(code int) error {
	if code == exitOK {
		return nil
	}
	return &exitError{code: code}
}

// exit prints what is to say about err and returns the exit status.
func (a *app) exit(err error) int {
	if err == nil {
		return exitOK
	}
	if e, ok := errors.AsType[*exitError](err); ok {
		if e.err != nil {
			a.errorf("%s", e.err)
			for _, line := range e.more {
				a.detailf("%s", line)
			}
			if e.hint != "" {
				a.hintf("%s", e.hint)
			}
		}
		return e.code
	}
	a.errorf("%s", err)
	return exitFailed
}

// exitCodeOf returns the exit status that goes with the end of a verb.
func exitCodeOf(err error) int {
	if err == nil {
		return exitOK
	}
	if e, ok := errors.AsType[*exitError](err); ok {
		return e.code
	}
	return exitFailed
}

// codeOf returns the exit status for an error of the control API.
func codeOf(err error) int {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return exitUnknown
	}
	e, ok := errors.AsType[*control.Error](err)
	if !ok {
		return exitFailed
	}
	switch e.Code {
	case control.CodePermission:
		return exitPermission
	case control.CodeNotRunning:
		return exitNotRunning
	case control.CodeUnknown, control.CodeInternal, control.CodeTooLarge:
		return exitUnknown
	case control.CodeTimedOut:
		return exitTimedOut
	case control.CodeInProgress, control.CodeNotMain, control.CodeNotServing, control.CodeStopping,
		control.CodeCrowded, control.CodeHeld, control.CodeGeneration, control.CodeBusy, control.CodeContainer,
		control.CodePaused, control.CodeNotStaged, control.CodeNoPrevious, control.CodeBinary, control.CodeUnsupported,
		control.CodeBadRequest, control.CodeNotFound, control.CodeMethod:
		return exitRefused
	}
	return exitFailed
}

// apiError makes the end of a verb out of an error of the control API.
func apiError(t target, err error) *exitError {
	out := exitf(codeOf(err), "%s: %w", t, cleanError{err})
	if e, ok := errors.AsType[*control.Error](err); ok {
		out.hint = clean(e.Hint)
		if e.Code == control.CodeUnknown {
			out.hint = "ask for the truth: " + t.command("status")
		}
	}
	return out
}
