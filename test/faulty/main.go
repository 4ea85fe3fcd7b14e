// Command faulty is a service that goes wrong as the plan of its version says: see
// package fault. Without a plan it is a good one.
//
//	GET /           tells who answers
//	POST /          tells what it got
//	GET /sleep?ms=  answers later
//	GET /ws         a WebSocket that sends each message back, after the generation
//
// Nothing says goodbye on a WebSocket: it stays for as long as its client wants, or
// up to the deadline of the drain.
//
// Under systemd it takes the socket called http; elsewhere it binds what the flag
// says.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"

	"github.com/hdctl/handoff/test/faulty/fault"
	"github.com/hdctl/handoff/upgrade"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "faulty:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	address := flag.String("http", "127.0.0.1:8080", "`address` of the socket http, where systemd passes none")
	flag.Parse()
	plan, what, err := fault.Own(os.Args[0])
	if err != nil {
		return err
	}
	fmt.Println("faulty: going to", what)
	in, err := fault.New(plan)
	if err != nil {
		return err
	}
	in.Reach(fault.Init)

	s := service{version: plan.Version, pid: os.Getpid()}
	if s.version == "" {
		s.version = "faulty"
	}
	up, err := upgrade.New(upgrade.Options{Version: s.version, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	s.generation = up.Generation()
	in.Reach(fault.Started)

	ln, err := up.Listen("http", "tcp", *address)
	if err != nil {
		return err
	}
	in.Reach(fault.Listening)

	srv := &http.Server{Handler: s.sign(in.Handler(s.handler())), ConnContext: in.ConnContext}
	if plan.OwnWay {
		go func() { _ = srv.Serve(ln) }() // it ends with the listener
	} else {
		up.Serve(ln, upgrade.HTTP(srv))
	}
	in.Reach(fault.Ready)
	stop := in.Watch(up, ln)
	defer stop()
	return up.Run(ctx)
}
