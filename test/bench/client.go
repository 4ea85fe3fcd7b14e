package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// client is one connection, with so little around it that what is measured is the
// server.
type client struct {
	conn *net.TCPConn
	br   *bufio.Reader
	bulk []byte // for downloads
}

// Buffers: that of net/http's clients, and one for downloads.
const (
	readBuffer = 4 << 10
	bulkBuffer = 256 << 10
)

func dial(ctx context.Context, address string) (*client, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	tcp := c.(*net.TCPConn)
	// Closed with a reset: 60 s of TIME_WAIT for each connection would use up the
	// ports.
	_ = tcp.SetLinger(0)
	return &client{conn: tcp, br: bufio.NewReaderSize(c, readBuffer)}, nil
}

func (c *client) close() { _ = c.conn.Close() }

// get and post are requests without a header that is not needed.
func get(path string) []byte { return []byte("GET " + path + " HTTP/1.1\r\nHost: bench\r\n\r\n") }

func post(path string, size int) []byte {
	return append(fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n", path, size), make([]byte, size)...)
}

// requestTimeout is when a request has failed.
const requestTimeout = 20 * time.Second

// do sends a request and reads the answer, of which it returns the body, if asked
// for, and how long it is.
func (c *client) do(request []byte, keep bool) (body []byte, n int64, err error) {
	if err := c.conn.SetDeadline(time.Now().Add(requestTimeout)); err != nil {
		return nil, 0, err
	}
	if _, err := c.conn.Write(request); err != nil {
		return nil, 0, err
	}
	n = -1
	for first := true; ; first = false {
		line, err := c.br.ReadSlice('\n')
		if err != nil {
			return nil, 0, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if first && !bytes.Equal(line, []byte("HTTP/1.1 200 OK")) {
			return nil, 0, fmt.Errorf("the answer begins with %q", line)
		}
		if len(line) == 0 {
			break
		}
		if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if n, err = strconv.ParseInt(string(value), 10, 64); err != nil {
				return nil, 0, err
			}
		}
	}
	if n < 0 {
		return nil, 0, fmt.Errorf("the answer has no Content-Length")
	}
	if keep {
		body = make([]byte, n)
		_, err = io.ReadFull(c.br, body)
		return body, n, err
	}
	return nil, n, c.discard(n)
}

// discard reads n bytes. What is not in the buffer yet bypasses it.
func (c *client) discard(n int64) error {
	skipped, err := c.br.Discard(int(min(n, int64(c.br.Buffered()))))
	if err != nil || int64(skipped) == n {
		return err
	}
	if c.bulk == nil {
		c.bulk = make([]byte, bulkBuffer)
	}
	for left := n - int64(skipped); left > 0; {
		m, err := c.conn.Read(c.bulk[:min(left, bulkBuffer)])
		if err != nil {
			return err
		}
		left -= int64(m)
	}
	return nil
}

// stats asks the service about itself.
func (c *client) stats(gc bool) (stats, error) {
	path := "/stats"
	if gc {
		path += "?gc=1"
	}
	var s stats
	body, _, err := c.do(get(path), true)
	if err != nil {
		return s, fmt.Errorf("ask for statistics: %w", err)
	}
	return s, json.Unmarshal(body, &s)
}
