package e2e

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// answer is an HTTP answer, read completely.
type answer struct {
	*http.Response
	body string
}

func (a answer) header(key string) string { return a.Header.Get(key) }

// get asks on a connection of its own.
func (s *site) get(path string) answer {
	s.t.Helper()
	c := s.connect()
	defer c.close()
	return c.get(path)
}

// client is one connection to the service.
type client struct {
	t  testing.TB
	c  net.Conn
	br *bufio.Reader
}

func (s *site) connect() *client {
	s.t.Helper()
	c, err := s.Dial(context.Background(), "tcp", address)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { c.Close() }) // and not when the garbage collector finds it
	return &client{s.t, c, bufio.NewReader(c)}
}

func (c *client) close() { _ = c.c.Close() }

// send writes a request without waiting for the answer.
func (c *client) send(path string) {
	c.t.Helper()
	c.write("GET " + path + " HTTP/1.1\r\nHost: demo\r\n\r\n")
}

// write writes what need not be a whole request.
func (c *client) write(text string) {
	c.t.Helper()
	_, err := io.WriteString(c.c, text)
	require.NoError(c.t, err)
}

// receive reads the answer to send.
func (c *client) receive() answer {
	c.t.Helper()
	r, err := http.ReadResponse(c.br, nil)
	require.NoError(c.t, err)
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	require.NoError(c.t, err)
	return answer{r, string(body)}
}

func (c *client) get(path string) answer {
	c.t.Helper()
	c.send(path)
	return c.receive()
}

// stream is an open stream of server-sent events.
type stream struct {
	*client
	generation string
}

// openStream opens one and waits for its first event.
func (s *site) openStream() *stream {
	s.t.Helper()
	c := s.connect()
	c.send("/stream?ms=50")
	r, err := http.ReadResponse(c.br, nil)
	require.NoError(s.t, err)
	require.Equal(s.t, http.StatusOK, r.StatusCode)
	st := &stream{c, r.Header.Get("X-Handoff-Generation")}
	c.br = bufio.NewReader(r.Body)
	require.NotEmpty(s.t, st.next())
	return st
}

// next reads one line that is not empty; "" is the end of the stream.
func (s *stream) next() string {
	for {
		line, err := s.br.ReadString('\n')
		if line = strings.TrimSpace(line); line != "" {
			return line
		}
		if err != nil {
			return ""
		}
	}
}

// goodbye reads until the service has said goodbye, and reports whether it did.
func (s *stream) goodbye() bool {
	for {
		switch line := s.next(); line {
		case "":
			return false
		case "event: goodbye":
			return true
		}
	}
}

// hold is a connection on the echo socket, which its generation drains until the
// client leaves.
type hold struct {
	c  net.Conn
	br *bufio.Reader
}

func (s *site) openEcho() *hold {
	s.t.Helper()
	c, err := s.Dial(context.Background(), "tcp", "127.0.0.1:7777")
	require.NoError(s.t, err)
	s.t.Cleanup(func() { c.Close() })
	return &hold{c, bufio.NewReader(c)}
}

// say sends a line and returns the answer; "" if the connection has ended.
func (h *hold) say(line string) string {
	if _, err := io.WriteString(h.c, line+"\n"); err != nil {
		return ""
	}
	reply, _ := h.br.ReadString('\n')
	return strings.TrimSpace(reply)
}
