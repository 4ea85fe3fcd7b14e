package main

import (
	"context"
	"errors"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// execStopCmd is "hdctl exec-stop", what ExecStop= of the units runs.
//
// systemd could do this by itself, but for one thing: the main process of a
// service that was upgraded was started by its predecessor, and was its child
// when systemd heard of it. systemd then takes it for somebody else's for the rest
// of its life, and does not wait for it after SIGTERM: if there is no other
// process in the unit, SIGKILL follows at once (seen with systemd 252, 257 and
// 262). As long as ExecStop= runs, it waits.
type execStopCmd struct{}

// Help is shown by hdctl exec-stop --help.
func (execStopCmd) Help() string {
	return `systemd says in $MAINPID which process that is. Without it there is nothing to
do. How long this may take is up to TimeoutStopSec=.

Example:

    # in the unit of a service
    ExecStop=/usr/bin/hdctl exec-stop
`
}

// Run stops the process and waits for its end.
func (*execStopCmd) Run(ctx context.Context, a *app) error {
	pid, err := strconv.Atoi(a.env["MAINPID"])
	switch {
	case a.env["MAINPID"] == "" || err == nil && pid == 0: // it has ended by itself
		return nil
	case err != nil || pid < 2:
		return exitf(exitUsage, "$MAINPID is %q, which is no process of a service", clean(a.env["MAINPID"])).
			withHint("this is for ExecStop= of a unit; to stop a service, use systemctl stop")
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return exitf(exitFailed, "open process %d: %w", pid, err)
	}
	defer unix.Close(pidfd)
	switch err := unix.PidfdSendSignal(pidfd, unix.SIGTERM, nil, 0); {
	case errors.Is(err, unix.ESRCH):
		return nil
	case errors.Is(err, unix.EPERM):
		return exitf(exitPermission, "stop process %d: %w", pid, err)
	case err != nil:
		return exitf(exitFailed, "stop process %d: %w", pid, err)
	}
	return awaitEnd(ctx, pidfd, pid)
}

// awaitEnd waits for the end of a process. It looks at ctx from time to time.
func awaitEnd(ctx context.Context, pidfd, pid int) error {
	const look = 100 * time.Millisecond
	for ctx.Err() == nil {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(look.Milliseconds()))
		switch {
		case err != nil && !errors.Is(err, unix.EINTR):
			return exitf(exitUnknown, "wait for the end of process %d: %w", pid, err)
		case n > 0:
			return nil
		}
	}
	return exitf(exitUnknown, "process %d has not ended yet: %w", pid, context.Cause(ctx))
}
