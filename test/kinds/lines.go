package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/hdctl/handoff/upgrade"
)

// dialogue is the state of a line protocol: each line is answered with
// "GENERATION COUNT line". Some lines mean something:
//
//	version    the answer tells the label of the build: "version v2"
//	name NAME  the dialogue is called so from now on
//	name       the answer tells: "name NAME"
//	stay       no generation but this one takes the session
type dialogue struct {
	Count int    `json:"count"`
	Name  string `json:"name"`
}

// stay is the name of a dialogue that a successor refuses.
const stay = "stay"

// dialogueVersion is the format of an encoded dialogue.
const dialogueVersion = 1

func (d *dialogue) encode() (upgrade.Session, error) {
	data, err := json.Marshal(d)
	return upgrade.Session{Version: dialogueVersion, Data: data}, err
}

// decodeDialogue is what a successor makes of a session that it is offered.
func decodeDialogue(version int, data []byte) (*dialogue, error) {
	if version != dialogueVersion {
		return nil, fmt.Errorf("session of format %d, this build knows %d", version, dialogueVersion)
	}
	d := new(dialogue)
	if err := json.Unmarshal(data, d); err != nil {
		return nil, fmt.Errorf("decode a session: %w", err)
	}
	if d.Name == stay {
		return nil, errors.New("the client wants to stay")
	}
	return d, nil
}

// answer answers a line.
func (d *dialogue) answer(generation int, line string) string {
	d.Count++
	switch command, name, named := strings.Cut(line, " "); {
	case line == "version":
		line = "version " + version
	case line == "name":
		line = "name " + d.Name
	case command == "name" && named:
		d.Name = name
	case line == stay:
		d.Name = stay
	}
	return fmt.Sprintf("%d %d %s\n", generation, d.Count, line)
}

// raw serves a connection that stays with its generation. The goodbye is a line.
func (s *service) raw(_ context.Context, c *upgrade.Conn) {
	stop := c.OnDrain(func() { goodbye(c) })
	defer stop()
	var d dialogue
	for in := bufio.NewReader(c); ; {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		if _, err := io.WriteString(c, d.answer(s.generation, strings.TrimSuffix(line, "\n"))); err != nil {
			return
		}
	}
}

// goodbye says it, and that nothing more comes. The client closes then; if it does
// not, the next read ends.
func goodbye(c *upgrade.Conn) {
	_, _ = io.WriteString(c, "goodbye\n")
	_ = c.CloseWrite()
	_ = c.SetReadDeadline(time.Now().Add(time.Second))
}

// session serves a connection that moves to the next generation between two lines.
// Only if that will not have it, or there is none, the goodbye is a line.
func (s *service) session(ctx context.Context, c *upgrade.Conn) {
	d, _ := c.Session().(*dialogue)
	if d == nil {
		d = new(dialogue)
	}
	// A goodbye only wakes who waits: whether the connection can move is tried by
	// the goroutine that knows if half a line was read.
	stop := c.OnDrain(func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for in := bufio.NewReader(c); ; {
		half, err := s.turn(ctx, c, in, d)
		switch {
		case err == nil:
		case errors.Is(err, upgrade.ErrDraining):
			if s.move(ctx, c, d) {
				return
			}
		case errors.Is(err, os.ErrDeadlineExceeded):
			if half || !s.move(ctx, c, d) {
				goodbye(c)
				_, _ = io.Copy(io.Discard, c) // until the client closes, too
			}
			return
		default:
			return
		}
	}
}

// turn waits for a line and answers it. half: of the next line some bytes have been
// read.
func (s *service) turn(ctx context.Context, c *upgrade.Conn, in *bufio.Reader, d *dialogue) (half bool, err error) {
	if in.Buffered() == 0 {
		if err := c.Await(ctx); err != nil {
			return false, err
		}
	}
	line, err := in.ReadString('\n')
	if err != nil {
		return line != "", err
	}
	_, err = io.WriteString(c, d.answer(s.generation, strings.TrimSuffix(line, "\n")))
	return in.Buffered() > 0, err
}

// move gives the connection to the next generation. If it is false, it is still
// ours.
func (s *service) move(ctx context.Context, c *upgrade.Conn, d *dialogue) bool {
	session, err := d.encode()
	if err == nil {
		err = c.Handoff(ctx, session)
	}
	if err != nil {
		s.log.Info("session stays", slog.String("name", d.Name), slog.Any("err", err))
	}
	return err == nil
}
