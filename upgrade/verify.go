package upgrade

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"time"
)

// verifyReads finds out whether the net/http that this program is linked with
// reads as [mover.movable] supposes: the first Read after a connection has become
// idle has room for a whole buffer if nothing is left over of what the client sent,
// and for as much less as there is left. It returns the size of the buffer. It
// drives a server of its own over pipes and takes less than a millisecond.
func verifyReads() (buffer int, err error) {
	buffer = bufio.NewReader(nil).Size()
	for _, c := range []struct {
		send     string
		leftOver int
		late     bool // the last byte is sent while the handler runs
	}{
		{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0, false},
		{"GET / HTTP/1.1\r\nHost: a\r\n\r\nG", 1, false},
		{"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET", 3, false},
		{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 0, false},
		{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloPO", 2, false},
		{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 0, false},
		{"GET / HTTP/1.1\r\nHost: a\r\n\r\nG", 1, true},
		{"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n", 0, false}, // all in hand, and read from the buffer
	} {
		room, deadlines, err := readAfterIdle(c.send, c.late)
		if err != nil {
			return 0, fmt.Errorf("check how net/http reads: %w", err)
		}
		if begun := strings.Count(c.send, "GET / HTTP/1.1\r\n") > 1; deadlines == 0 || (deadlines > 1) != begun {
			return 0, fmt.Errorf("net/http reads otherwise than it is known to: it has set %d deadlines after %q", deadlines, c.send)
		}
		if want := buffer - c.leftOver; room != want {
			return 0, fmt.Errorf("net/http reads otherwise than it is known to: into %d bytes instead of %d with %d left over", room, want, c.leftOver)
		}
	}
	return buffer, nil
}

// verifyTimeout is for a net/http that hangs in the check.
const verifyTimeout = 2 * time.Second

// readAfterIdle sends to a server and returns the length of the buffer of its
// first Read after the connection has become idle.
func readAfterIdle(send string, late bool) (room, deadlines int, err error) {
	client, server := net.Pipe()
	defer client.Close()
	probe := &readProbe{Conn: server, room: make(chan int, 1)}
	ln := &oneListener{conn: probe, closed: make(chan struct{})}
	inHandler, goOn := make(chan struct{}), make(chan struct{})
	srv := &http.Server{
		Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			close(inHandler)
			<-goOn
		}),
		ConnState: func(_ net.Conn, state http.ConnState) { probe.idle(state == http.StateIdle) },
		ErrorLog:  log.New(io.Discard, "", 0),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(ln)
	}()
	defer func() {
		_ = srv.Close()
		<-done
	}()
	_ = client.SetDeadline(time.Now().Add(verifyTimeout))
	first, last := send, ""
	if late {
		first, last = send[:len(send)-1], send[len(send)-1:]
	}
	if _, err := io.WriteString(client, first); err != nil {
		close(goOn)
		return 0, 0, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), verifyTimeout)
	defer cancel()
	select {
	case <-inHandler:
	case <-ctx.Done():
		close(goOn)
		return 0, 0, ctx.Err()
	}
	if late {
		if _, err := io.WriteString(client, last); err != nil { // returns when it has been read
			close(goOn)
			return 0, 0, err
		}
	}
	close(goOn)
	go func() { _, _ = io.Copy(io.Discard, client) }()
	select {
	case room := <-probe.room:
		return room, probe.deadlines, nil
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
}

// readProbe sees the Read that follows on StateIdle.
type readProbe struct {
	net.Conn
	mu     sync.Mutex
	isIdle bool
	room   chan int

	deadlines int // set since it is idle, before that Read
}

func (p *readProbe) SetReadDeadline(t time.Time) error {
	p.mu.Lock()
	if p.isIdle {
		p.deadlines++
	}
	p.mu.Unlock()
	return p.Conn.SetReadDeadline(t)
}

func (p *readProbe) idle(yes bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.isIdle = yes
}

func (p *readProbe) Read(b []byte) (int, error) {
	p.mu.Lock()
	if p.isIdle {
		p.isIdle = false
		p.room <- len(b)
		p.mu.Unlock()
		return 0, io.EOF
	}
	p.mu.Unlock()
	return p.Conn.Read(b)
}

// oneListener is a listener with one connection.
type oneListener struct {
	mu     sync.Mutex
	conn   net.Conn
	close  sync.Once
	closed chan struct{}
}

func (l *oneListener) Accept() (net.Conn, error) {
	l.mu.Lock()
	c := l.conn
	l.conn = nil
	l.mu.Unlock()
	if c != nil {
		return c, nil
	}
	<-l.closed
	return nil, net.ErrClosed
}

func (l *oneListener) Close() error {
	l.close.Do(func() { close(l.closed) })
	return nil
}

func (l *oneListener) Addr() net.Addr { return &net.UnixAddr{Name: "verify", Net: "unix"} }

// verifyStatus finds out whether the status of an answer is where we look for it in
// the net/http that this program is linked with ([findStatus]).
func verifyStatus(version int) error {
	name, protocols := "HTTP/1", new(http.Protocols)
	if version == http2 {
		name = "HTTP/2"
		protocols.SetUnencryptedHTTP2(true)
	} else {
		protocols.SetHTTP1(true)
	}
	seen := make(chan [3]int, 1)
	srv := &http.Server{
		Protocols: protocols,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			status := findStatus(reflect.TypeOf(w))
			before := status.read(w)
			w.WriteHeader(http.StatusEarlyHints)
			early := status.read(w)
			if r.URL.Path == "/error" {
				w.WriteHeader(http.StatusServiceUnavailable)
			} else {
				_, _ = io.WriteString(w, "well")
			}
			seen <- [3]int{before, early, status.read(w)}
		}),
	}
	client, stop := verifyServer(srv)
	defer stop()
	for path, want := range map[string]int{"/": http.StatusOK, "/error": http.StatusServiceUnavailable} {
		r, err := client.Get("http://verify" + path)
		if err != nil {
			return fmt.Errorf("check where net/http keeps the status of %s: %w", name, err)
		}
		_, _ = io.Copy(io.Discard, r.Body) // so that the connection can be used again
		r.Body.Close()
		if got := <-seen; got != [3]int{0, 0, want} || r.StatusCode != want {
			return fmt.Errorf("net/http keeps the status of %s elsewhere than it is known to: found %d, instead of %d", name, got, want)
		}
	}
	return nil
}

// verifyServer has srv serve one connection, that of the client.
func verifyServer(srv *http.Server) (*http.Client, func()) {
	conn, server := net.Pipe()
	closed := make(chan struct{})
	srv.ErrorLog = log.New(io.Discard, "", 0)
	srv.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			close(closed)
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(&oneListener{conn: server, closed: make(chan struct{})})
	}()
	transport := &http.Transport{
		Protocols:   srv.Protocols,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil },
	}
	stop := func() {
		transport.CloseIdleConnections()
		_ = conn.Close()
		_ = srv.Close()
		<-done
		select {
		case <-closed: // its goroutine has ended
		case <-time.After(verifyTimeout): // or was never there
		}
	}
	return &http.Client{Transport: transport, Timeout: verifyTimeout}, stop
}
