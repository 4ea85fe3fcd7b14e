// Handoff-demo is the example service of this module: HTTP, server-sent events,
// WebSocket, raw TCP and UDP, replaced by a new version without one lost request.
//
// Under systemd it takes the sockets called "http" (required), "echo" (TCP) and
// "dgram" (UDP) from its socket units. Elsewhere it binds what the flags say:
//
//	handoff-demo --http 127.0.0.1:8080 --echo 127.0.0.1:7000 --dgram 127.0.0.1:7001
//	curl http://127.0.0.1:8080/
//
// Build another version over it, and replace the one that runs:
//
//	go build -ldflags "-X main.version=v2" ./cmd/handoff-demo
//	hdctl upgrade handoff-demo     # or: kill -HUP, and no answer
//
// The files are meant to be copied from: main.go is the life of a service,
// http.go and echo.go are what it serves.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/hdctl/handoff/activation"
	"github.com/hdctl/handoff/upgrade"
)

// version is the label of this build: -ldflags "-X main.version=v2".
var version = "dev"

func main() {
	err := run(context.Background(), os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		os.Exit(2)
	case err != nil:
		fmt.Fprintf(os.Stderr, "handoff-demo: error: %v\n", err)
		os.Exit(1)
	}
}

// config is what the command line says.
type config struct {
	name              string // of the service
	http, echo, dgram string // addresses
	version           bool
}

// errUsage is a mistake on the command line; the user has been told.
var errUsage = errors.New("wrong usage")

func parse(args []string, stderr io.Writer) (config, error) {
	var c config
	flags := flag.NewFlagSet("handoff-demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&c.name, "name", "", "`name` of the service (default: the unit's, else that of the program)")
	flags.StringVar(&c.http, "http", "127.0.0.1:8080", "`address` for HTTP, where systemd passes no socket")
	flags.StringVar(&c.echo, "echo", "", "`address` for the TCP echo, likewise (default none)")
	flags.StringVar(&c.dgram, "dgram", "", "`address` for the UDP echo, likewise (default none)")
	flags.BoolVar(&c.version, "version", false, "print the version and exit")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return c, err
	case err != nil:
		return c, errUsage
	case flags.NArg() > 0:
		fmt.Fprintf(stderr, "handoff-demo: error: unexpected argument %q\n", flags.Arg(0))
		return c, errUsage
	}
	return c, nil
}

// run is one generation of the service, from its start until it is stopped, or
// has handed over and finished what its clients had open.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	conf, err := parse(args, stderr)
	if err != nil {
		return err
	}
	if conf.version {
		_, err := fmt.Fprintln(stdout, version)
		return err
	}

	log := newLogger(stderr, os.Getenv("JOURNAL_STREAM") != "")
	up, err := upgrade.New(upgrade.Options{Name: conf.name, Version: version, Logger: log})
	if err != nil {
		return err
	}
	svc := &service{
		name:       up.Status().Service,
		version:    version,
		generation: up.Generation(),
		pid:        os.Getpid(),
		started:    time.Now(),
		draining:   up.Draining,
		log:        log,
	}

	ln, err := up.Listen("http", "tcp", conf.http)
	if err != nil {
		return err
	}
	up.Serve(ln, upgrade.HTTP(&http.Server{
		Handler: svc.handler(),
		// Without it, clients could keep half a request open for ever. It must be
		// longer than any proxy keeps a spare connection, which it closes, too.
		ReadHeaderTimeout: 5 * time.Minute,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}))

	echo, err := up.Listen("echo", "tcp", conf.echo)
	if err := optional(err); err != nil {
		return err
	}
	if echo != nil {
		up.Serve(echo, upgrade.TCP(svc.echo))
	}

	dgram, err := up.ListenPacket("dgram", "udp", conf.dgram)
	if err := optional(err); err != nil {
		return err
	}
	if dgram != nil {
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			svc.datagrams(dgram)
		}()
		defer func() { <-answered }()
		defer dgram.Close()
	}

	return up.Run(ctx)
}

// optional forgives that nobody passed a socket, and that none was asked for.
func optional(err error) error {
	var missing *activation.NameError
	if errors.As(err, &missing) {
		return nil
	}
	return err
}
