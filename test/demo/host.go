package main

import (
	"context"
	"net"

	"github.com/hdctl/handoff/upgrade/control"
)

// host is where the service runs. What it does, it does by commands that a person
// could type, and shows them.
type host interface {
	// install puts a version in the place that the service is started from.
	install(ctx context.Context, version string) error
	// start starts the service, with the version that is installed.
	start(ctx context.Context) error
	// reload starts an upgrade in the way that the machine has for it, and
	// waits for its end.
	reload(ctx context.Context) outcome
	// hdctl runs hdctl for the service.
	hdctl(ctx context.Context, args ...string) outcome
	// answersReload says that the exit status of reload is that of the upgrade.
	answersReload() bool
	// dial connects to the service's HTTP socket.
	dial(ctx context.Context) (net.Conn, error)
	// client is a client of the service's control socket.
	client() *control.Client
	// close stops the service and removes what there was of it.
	close() error
}
