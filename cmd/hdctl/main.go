// Command hdctl upgrades handoff services, and shows what they do.
//
//	hdctl upgrade app    start a new version and hand it the sockets
//	hdctl status app     show its generations and their connections
//	hdctl conns app      list the connections, with their clients
//
// See "hdctl --help", and hdctl(1).
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// version is set at build time: -ldflags "-X main.version=v1.2.3".
var version string

func main() {
	// The first signal ends the waiting, so that hdctl can say what goes on
	// without it. The second has its usual effect.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Environ()))
}
