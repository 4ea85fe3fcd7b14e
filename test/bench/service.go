package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/cloudflare/tableflip"

	"github.com/hdctl/handoff/upgrade"
)

// serveCommand makes a process a service: bench serve KIND.
const serveCommand = "serve"

// Kinds of services.
const (
	kindBare      = "bare"      // net/http on a listener of package net; no upgrade
	kindTableflip = "tableflip" // the same, with tableflip and Shutdown
	kindHandoff   = "handoff"   // package upgrade
)

// anyPort is where a service listens. It reports the port that it got.
const anyPort = "127.0.0.1:0"

// serve is a generation of a service.
func serve(args []string) error {
	if len(args) != 1 {
		return errors.New("not for people: usage: bench serve KIND")
	}
	r, err := newReporter()
	if err != nil {
		return err
	}
	defer r.close()
	a := newAnswers(os.Getenv(fileEnv))
	srv := &http.Server{Handler: a.handler(), ConnState: a.connState}
	weaken(srv)
	switch args[0] {
	case kindBare:
		err = serveBare(srv, r)
	case kindTableflip:
		err = serveTableflip(srv, r)
	case kindHandoff:
		err = serveHandoff(srv, r)
	default:
		err = fmt.Errorf("unknown kind %q", args[0])
	}
	if err != nil {
		return err
	}
	return r.send(event{Event: eventExited, CPU: ownCPU()})
}

func serveBare(srv *http.Server, r *reporter) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	ln, err := net.Listen("tcp", anyPort)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = srv.Close() })
	if err := r.listening(ln.Addr()); err != nil {
		return err
	}
	return served(srv.Serve(ln))
}

func serveHandoff(srv *http.Server, r *reporter) error {
	up, err := upgrade.New(upgrade.Options{Name: "bench"})
	if err != nil {
		return err
	}
	ln, err := up.Listen("http", "tcp", anyPort)
	if err != nil {
		return err
	}
	up.Serve(ln, upgrade.HTTP(srv))
	if err := r.listening(ln.Addr()); err != nil {
		return err
	}
	return up.Run(context.Background())
}

// serveTableflip is the example of tableflip's documentation, with a stop by
// SIGTERM.
func serveTableflip(srv *http.Server, r *reporter) error {
	upg, err := tableflip.New(tableflip.Options{})
	if err != nil {
		return err
	}
	defer upg.Stop()

	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	go func() {
		for {
			select {
			case <-hup:
				if err := upgradePatiently(upg); err != nil {
					_ = r.send(event{Event: eventFailed, Message: err.Error()})
				}
			case <-term:
				upg.Stop()
			}
		}
	}()

	ln, err := upg.Listen("tcp", anyPort)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(ln) }()
	if err := upg.Ready(); err != nil {
		return err
	}
	if err := r.listening(ln.Addr()); err != nil {
		return err
	}
	<-upg.Exit()

	time.AfterFunc(30*time.Second, func() { os.Exit(1) })
	if err := srv.Shutdown(context.Background()); err != nil {
		return err
	}
	return served(<-ended)
}

// upgradePatiently upgrades when the process before is really gone: it has said
// goodbye to the bench while it still had a moment to live.
func upgradePatiently(upg *tableflip.Upgrader) error {
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for range 200 {
		err := upg.Upgrade()
		if err == nil || err.Error() != "parent hasn't exited" {
			return err
		}
		<-again.C
	}
	return errors.New("the process before does not go")
}

// served is how a server ended that was asked to.
func served(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
