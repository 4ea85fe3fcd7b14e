// Command kinds is a service that holds connections of every kind that live long:
// server-sent events, WebSockets, gRPC streams, raw TCP, and sessions that move to
// the next generation. The end-to-end tests upgrade it; package client is the other
// side. Each answer tells which generation gave it.
//
//	http     GET /, POST /, GET /sse, GET /ws, GET /config
//	https    the same over TLS, with a certificate of its own: HTTP/2 or 1.1
//	h2c      the same over unencrypted HTTP/2, with prior knowledge
//	grpc     the service of package rpc
//	raw      lines, which stay with their generation
//	session  lines, which move: Await, Handoff, Adopt
//
// Under systemd it takes those of these sockets that its socket units pass;
// elsewhere it binds what the flags say.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"

	"google.golang.org/grpc"

	"github.com/hdctl/handoff/activation"
	"github.com/hdctl/handoff/test/kinds/rpc"
	"github.com/hdctl/handoff/upgrade"
)

// version is the label of this build: -ldflags "-X main.version=v2".
var version = "dev"

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "kinds: error:", err)
		os.Exit(1)
	}
}

// service is one generation.
type service struct {
	generation int
	log        *slog.Logger
	config     *config // nil: there is none
}

func run(ctx context.Context) error {
	addresses := make(map[string]*string)
	for _, name := range []string{"http", "https", "h2c", "grpc", "raw", "session"} {
		addresses[name] = flag.String(name, "", "`address` of the socket "+name+", where systemd passes none")
	}
	name := flag.String("name", "", "`name` of the service (default: the unit's)")
	flag.Parse()

	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	options := upgrade.Options{Name: *name, Version: version, Logger: log}
	conf, err := openConfig(&options)
	if err != nil {
		return err
	}
	up, err := upgrade.New(options)
	if err != nil {
		return err
	}
	s := &service{generation: up.Generation(), log: log, config: conf}

	for name, server := range map[string]func() (*http.Server, error){
		"http": s.plain, "https": s.encrypted, "h2c": s.priorKnowledge,
	} {
		web, err := listen(up, name, *addresses[name])
		if err != nil {
			return err
		}
		if web == nil {
			continue
		}
		srv, err := server()
		if err != nil {
			return err
		}
		up.Serve(web, upgrade.HTTP(srv))
	}

	calls, err := listen(up, "grpc", *addresses["grpc"])
	if err != nil {
		return err
	}
	if calls != nil {
		server := grpc.NewServer(grpc.Creds(connCredentials{}))
		rpc.Register(server, s)
		up.Serve(calls, upgrade.Graceful(server))
	}

	raw, err := listen(up, "raw", *addresses["raw"])
	if err != nil {
		return err
	}
	if raw != nil {
		up.Serve(raw, upgrade.TCP(s.raw))
	}

	sessions, err := listen(up, "session", *addresses["session"])
	if err != nil {
		return err
	}
	if sessions != nil {
		sessions.Adopt(func(s upgrade.Session) (any, error) { return decodeDialogue(s.Version, s.Data) })
		up.Serve(sessions, upgrade.TCP(s.session))
	}
	err = up.Run(ctx)
	log.Info("over", slog.Int("generation", s.generation)) // not if it was killed
	return err
}

// listen claims a socket; nil is one that nobody passed, and nobody asked for.
func listen(up *upgrade.Upgrader, name, address string) (*upgrade.Listener, error) {
	l, err := up.Listen(name, "tcp", address)
	var missing *activation.NameError
	if errors.As(err, &missing) {
		return nil, nil
	}
	return l, err
}

// leaving returns a channel that is closed when c shall come to an end, for a
// handler that waits for several things. stop ends that.
func leaving(c *upgrade.Conn) (leave <-chan struct{}, stop func() bool) {
	ch := make(chan struct{})
	return ch, c.OnDrain(func() { close(ch) })
}
