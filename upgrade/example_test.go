package upgrade_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/hdctl/handoff/upgrade"
	"github.com/hdctl/handoff/upgrade/control"
)

// A net/http service needs one call. Under systemd the socket called "http" comes
// from its .socket unit; elsewhere srv.Addr is bound.
func ExampleListenAndServe() {
	srv := &http.Server{
		Addr: "127.0.0.1:8080",
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintln(w, "hello")
		}),
	}
	if err := upgrade.ListenAndServe(srv, upgrade.Options{Version: "v1.2.3"}); err != nil {
		log.Fatal(err)
	}
}

// Several sockets and protocols: HTTP, lines over TCP, datagrams.
func ExampleNew() {
	run := func(ctx context.Context) error {
		u, err := upgrade.New(upgrade.Options{Version: "v1.2.3"})
		if err != nil {
			return err
		}
		web, err := u.Listen("http", "tcp", "127.0.0.1:8080")
		if err != nil {
			return err
		}
		u.Serve(web, upgrade.HTTP(&http.Server{Handler: http.FileServer(http.Dir("/srv/www"))}))

		echo, err := u.Listen("echo", "tcp", "127.0.0.1:7000")
		if err != nil {
			return err
		}
		u.Serve(echo, upgrade.TCP(func(_ context.Context, c *upgrade.Conn) {
			lines := bufio.NewScanner(c)
			for lines.Scan() {
				fmt.Fprintln(c, lines.Text())
			}
		}))

		dgram, err := u.ListenPacket("dgram", "udp", "127.0.0.1:7001")
		if err != nil {
			return err
		}
		go func() {
			buf := make([]byte, 64<<10)
			for {
				n, from, err := dgram.ReadFrom(buf)
				if errors.Is(err, net.ErrClosed) {
					return // this generation is over
				}
				if err == nil {
					_, _ = dgram.WriteTo(buf[:n], from)
				}
			}
		}()
		return u.Run(ctx)
	}
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// A handler that streams says goodbye when its connection shall come to an end, so
// that its client connects again, to the next generation.
func ExampleConn_OnDrain() {
	http.HandleFunc("/ticks", func(w http.ResponseWriter, r *http.Request) {
		leaving := make(chan struct{})
		if c, ok := upgrade.ConnFrom(r.Context()); ok {
			stop := c.OnDrain(func() { close(leaving) })
			defer stop()
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for tick := time.Tick(time.Second); ; {
			select {
			case t := <-tick:
				fmt.Fprintf(w, "data: %s\n\n", t)
				_ = http.NewResponseController(w).Flush()
			case <-leaving:
				_, _ = io.WriteString(w, "event: goodbye\ndata:\n\n")
				return
			case <-r.Context().Done(): // also when the drain's deadline has come
				return
			}
		}
	})
}

// A line protocol with a counter for each connection, which goes on counting in
// the next generation: Await is where nothing is read that is not answered.
func ExampleConn_Handoff() {
	u, err := upgrade.New(upgrade.Options{})
	if err != nil {
		log.Fatal(err)
	}
	ln, err := u.Listen("count", "tcp", "127.0.0.1:7000")
	if err != nil {
		log.Fatal(err)
	}
	ln.Adopt(func(s upgrade.Session) (any, error) {
		if s.Version != 1 {
			return nil, fmt.Errorf("session version %d is not known here", s.Version)
		}
		return strconv.Atoi(string(s.Data))
	})
	u.Serve(ln, upgrade.TCP(func(ctx context.Context, c *upgrade.Conn) {
		n, _ := c.Session().(int)
		lines := bufio.NewReader(c)
		for {
			if lines.Buffered() == 0 { // otherwise there is something to answer first
				err := c.Await(ctx)
				if errors.Is(err, upgrade.ErrDraining) {
					err = c.Handoff(ctx, upgrade.Session{Version: 1, Data: strconv.AppendInt(nil, int64(n), 10)})
					if err == nil {
						return // it is not ours any more
					}
					continue // refused: it stays
				}
				if err != nil {
					return
				}
			}
			if _, err := lines.ReadString('\n'); err != nil {
				return
			}
			n++
			fmt.Fprintln(c, n)
		}
	}))
	if err := u.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// A gRPC server stops gracefully, and is cut at the drain's deadline. (Package
// upgrade does not import grpc.)
func ExampleGraceful() {
	u, err := upgrade.New(upgrade.Options{})
	if err != nil {
		log.Fatal(err)
	}
	ln, err := u.Listen("grpc", "tcp", "127.0.0.1:9090")
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	u.Serve(ln, upgrade.Graceful(server))
	if err := u.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// A service may upgrade itself, for instance when it has fetched a new version.
func ExampleUpgrader_Upgrade() {
	u, err := upgrade.New(upgrade.Options{})
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		_, err := u.Upgrade(context.Background(), control.UpgradeRequest{Reason: "version 2 was fetched"})
		if start, ok := errors.AsType[*upgrade.StartError](err); ok {
			log.Printf("generation %d failed in %s: %v; it printed %q", start.Generation, start.Phase, start.Err, start.Output)
		}
	}()
	if err := u.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}
