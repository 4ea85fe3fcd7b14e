package upgrade

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"time"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/controld"
	"github.com/hdctl/handoff/upgrade/internal/link"
	"github.com/hdctl/handoff/upgrade/internal/machine"
)

// The list of connections is made where they are: main asks each draining
// generation for its own, over a pipe, as the very lines that the client gets.

// listTimeout is how long main waits for a draining generation to say more, and
// takeTimeout how long that waits for main to take it: main takes one list after
// the other, at the pace of its client.
const (
	listTimeout = 2 * time.Second
	takeTimeout = 30 * time.Second
)

// listChunk is about how much of a list is passed on at a time, in bytes.
const listChunk = 32 << 10

// Conns lists the connections of all generations, the oldest generation first,
// and of each the oldest connection first.
func (b backend) Conns(ctx context.Context, f control.ConnFilter, emit func(lines []byte) error) (*control.ConnsEnd, error) {
	lists, end, err := b.u.askForLists(ctx, f)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, l := range lists {
			_ = l.pipe.Close()
		}
	}()
	for _, l := range lists {
		n, err := l.copy(emit)
		end.Total += n
		if gone, ok := errors.AsType[*emitError](err); ok {
			return nil, gone.err
		}
		if err != nil {
			end.Missing = append(end.Missing, control.MissingConns{Generation: l.generation, Reason: err.Error()})
		}
	}
	if f.Generation == 0 || f.Generation == b.u.number {
		n, err := b.u.writeConns(f, emit)
		end.Total += n
		if err != nil {
			return nil, err
		}
	}
	return end, nil
}

// connList is a list that another generation writes.
type connList struct {
	generation int
	pipe       *os.File // owned
	pidfd      *os.File // of its process; the peer's
}

// askForLists asks the draining generations that f selects.
func (u *Upgrader) askForLists(ctx context.Context, f control.ConnFilter) (lists []connList, end *control.ConnsEnd, err error) {
	// The driver may come to it when nobody waits any more: it hands over what is its
	// own, and nobody is left with open pipes.
	type asked struct {
		lists []connList
		end   *control.ConnsEnd
	}
	answer := make(chan asked, 1)
	err = u.ask(ctx, func() error {
		var lists []connList
		end := new(control.ConnsEnd)
		if f.Generation != 0 && f.Generation != u.number && u.peers[f.Generation] == nil {
			return control.Errorf(control.CodeGeneration, "there is no generation %d", f.Generation).
				WithHint("hdctl status %s lists them", u.name)
		}
		numbers := u.state.Drainers
		if c := u.state.Candidate; c.Phase != machine.None { // it serves, if it is on probation
			numbers = append(numbers[:len(numbers):len(numbers)], c.Number)
		}
		for _, number := range numbers {
			if ctx.Err() != nil {
				break
			}
			p := u.peers[number]
			if p == nil || f.Generation != 0 && f.Generation != number {
				continue
			}
			pipe, err := askForList(p, f)
			if errors.Is(err, link.ErrPeerClosed) { // it is on its way out, with nothing left
				continue
			}
			if err != nil {
				end.Missing = append(end.Missing, control.MissingConns{Generation: number, Reason: err.Error()})
				continue
			}
			lists = append(lists, connList{number, pipe, p.pidfd})
		}
		answer <- asked{lists, end}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	a := <-answer
	return a.lists, a.end, nil
}

// askForList asks one generation, and returns where it will write.
func askForList(p *peer, f control.ConnFilter) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	if err := p.conn.Send(link.List{State: f.State, Listener: f.Listener}, w); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// emitError is an error of who gets a list, not of who makes it.
type emitError struct{ err error }

func (e *emitError) Error() string { return e.err.Error() }

// copy passes the list on, and returns how many connections were in it. An error
// but an [*emitError] says why it is not complete.
func (l connList) copy(emit func([]byte) error) (total int, err error) {
	buf := make([]byte, 2*listChunk)
	have := 0 // the beginning of a line, at the beginning of buf
	for {
		if err := l.pipe.SetReadDeadline(time.Now().Add(listTimeout)); err != nil {
			return total, err
		}
		n, err := l.pipe.Read(buf[have:])
		have += n
		lines := buf[:bytes.LastIndexByte(buf[:have], '\n')+1]
		body, complete := cutEnd(lines)
		if len(body) > 0 {
			total += bytes.Count(body, []byte{'\n'})
			if err := emit(body); err != nil {
				return total, &emitError{err}
			}
		}
		if complete {
			return total, nil
		}
		have = copy(buf, buf[len(lines):have])
		switch {
		case errors.Is(err, io.EOF):
			if total == 0 && have == 0 && l.pidfd != nil && ended(l.pidfd) {
				return 0, nil // it had nothing left
			}
			if total == 0 && have == 0 {
				return 0, errors.New("it does not list its connections (an older version of the library?)")
			}
			return total, errors.New("its list was cut off")
		case errors.Is(err, os.ErrDeadlineExceeded):
			return total, fmt.Errorf("it does not answer within %v", listTimeout)
		case err != nil:
			return total, err
		case have == len(buf):
			return total, errors.New("its list is not understood")
		}
	}
}

// endOfList is the last line that a generation writes.
const endOfList = "{\"end\":{}}\n"

func cutEnd(lines []byte) (body []byte, complete bool) {
	return bytes.CutSuffix(lines, []byte(endOfList))
}

// listConns writes the connections of this generation for main. The driver calls
// it; keep says that the pipe is used.
func (u *Upgrader) listConns(m link.List, pipe *os.File) (keep bool) {
	u.wg.Go(func() {
		defer pipe.Close()
		write := func(p []byte) error {
			if err := pipe.SetWriteDeadline(time.Now().Add(takeTimeout)); err != nil {
				return err
			}
			_, err := pipe.Write(p)
			return err
		}
		_, err := u.writeConns(control.ConnFilter{State: m.State, Listener: m.Listener}, write)
		if err == nil {
			err = write([]byte(endOfList))
		}
		if err != nil {
			u.log.LogAttrs(u.ctx, slog.LevelInfo, "connections not listed", slog.Any("err", err))
		}
	})
	return true
}

// writeConns writes the connections of this generation. Nothing of the service
// waits for it: a set is locked while its connections are collected, not while they
// are described.
func (u *Upgrader) writeConns(f control.ConnFilter, emit func([]byte) error) (total int, err error) {
	buf := make([]byte, 0, listChunk+4096)
	for _, l := range u.allListeners() {
		if f.Listener != "" && f.Listener != l.name {
			continue
		}
		now := time.Now()
		for _, c := range l.conns.All() {
			phase := c.entry.Phase().String()
			if f.State != "" && f.State != phase {
				continue
			}
			d := control.Conn{
				Generation: u.number, PID: u.pid, Listener: l.name, State: phase, Doing: c.entry.Label(),
				Age: inSeconds(now.Sub(c.entry.Accepted())), Quiet: inSeconds(now.Sub(c.entry.Moved())),
			}
			if a := c.RemoteAddr(); a != nil {
				d.Peer = a.String()
			}
			d.In, d.Out = c.entry.Bytes()
			buf = controld.AppendConn(buf, &d)
			total++
			if len(buf) >= listChunk {
				if err := emit(buf); err != nil {
					return total, err
				}
				buf = buf[:0]
			}
		}
	}
	if len(buf) > 0 {
		return total, emit(buf)
	}
	return total, nil
}

// inSeconds is d in seconds, for people and JSON; never negative.
func inSeconds(d time.Duration) float64 {
	return math.Round(max(d, 0).Seconds()*1000) / 1000
}
