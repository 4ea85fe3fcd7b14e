// Demo shows what the project does, in less than 90 seconds: a service under
// load is replaced by another version, several times, and no request fails. One
// of the versions is broken; it changes nothing.
//
//	make demo
//
// As root on a machine with systemd it boots a private one, in namespaces, beside
// the machine's own and without touching it, and runs the demo service there, with
// real units, systemctl and hdctl. Elsewhere the service runs without systemd; the
// first lines say which of the two it is, and why.
//
// It exits with 1 if a request failed, if an upgrade failed that should not have,
// or if the broken version was accepted.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/hdctl/handoff/test/testbed"
)

// limit is when something is so wrong that the end of it is not worth waiting
// for. The first build on a slow machine is in it.
const limit = 5 * time.Minute

func main() {
	withoutSystemd := flag.Bool("without-systemd", false, "do not boot a systemd, even if that is possible")
	flag.Parse()

	ctx, cancel := context.WithTimeout(context.Background(), limit)
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	s := newStage(os.Stdout, os.Getenv("NO_COLOR") == "" && term.IsTerminal(int(os.Stdout.Fd())))
	err := run(ctx, s, *withoutSystemd)
	stop()
	cancel()
	if err != nil {
		s.failure(err)
		os.Exit(1)
	}
}

// run builds, finds a host, and gives the show.
func run(ctx context.Context, s *stage, withoutSystemd bool) (err error) {
	dir, err := os.MkdirTemp("", "handoff-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	unavailable := testbed.Available()
	if withoutSystemd {
		unavailable = fmt.Errorf("asked for on the command line")
	}
	if unavailable == nil {
		s.say("Here a private systemd can boot: the service runs under systemd, with real units.")
	} else {
		s.say("The service runs WITHOUT systemd and binds its sockets by itself. Reason: %s.", oneLine(unavailable))
	}

	s.heading("Build two versions of the service, a broken one, and hdctl")
	if err := build(ctx, s, dir); err != nil {
		return err
	}

	var h host
	if unavailable == nil {
		h, err = newSystemd(ctx, s, dir)
	} else {
		h, err = newBare(ctx, s, dir)
	}
	if err != nil {
		return err
	}
	defer func() {
		if cerr := h.close(); err == nil && cerr != nil {
			err = fmt.Errorf("clean up: %w", cerr)
		}
	}()
	return (&show{stage: s, host: h}).run(ctx)
}
