package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"

	"github.com/hdctl/handoff/upgrade"
)

// echo sends each line back, with the number of the generation that does so. The
// connection stays with its generation: after an upgrade the old one goes on
// answering until the client leaves, or until the drain's deadline closes the
// connection under the read.
func (s *service) echo(_ context.Context, c *upgrade.Conn) {
	lines := bufio.NewScanner(c)
	for lines.Scan() {
		if _, err := fmt.Fprintf(c, "%d: %s\n", s.generation, lines.Bytes()); err != nil {
			return
		}
	}
}

// datagrams answers datagrams until its generation is over.
func (s *service) datagrams(conn net.PacketConn) {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				s.log.Error("read datagram", slog.Any("err", err))
			}
			return
		}
		if _, err := conn.WriteTo(fmt.Appendf(nil, "%d: %s", s.generation, buf[:n]), from); err != nil {
			s.log.Warn("answer datagram", slog.Any("err", err)) // the next client may have more luck
		}
	}
}
