package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"golang.org/x/term"
)

// Escape sequences of every terminal of the last forty years.
const (
	enterScreen = "\x1b[?1049h\x1b[?7l\x1b[?25l" // alternate screen, no wrapping of lines, no cursor
	leaveScreen = "\x1b[?25h\x1b[?7h\x1b[?1049l"
	home        = "\x1b[H"
	endOfLine   = "\x1b[K"
	endOfScreen = "\x1b[J"
)

// watching are the flags of verbs that can look again and again.
type watching struct {
	Watch    bool          `short:"w" help:"Show it again and again; on a terminal in place."`
	Interval time.Duration `default:"1s" placeholder:"DURATION" help:"Time between two looks of --watch."`
}

// look is one look at what a verb shows: show prints what was seen, and code is
// the exit status for it. On a screen of so many lines, what has more to show
// shows the beginning; 0 is all of it.
type look func(ctx context.Context) (show func(lines int) error, code int, err error)

// run looks once, or until the context ends; the exit status is that of the last
// look.
func (w *watching) run(ctx context.Context, a *app, look look) error {
	if w.Watch {
		if w.Interval < 10*time.Millisecond {
			return exitf(exitUsage, "--interval: %v is less than 10ms", w.Interval)
		}
		return w.watch(ctx, a, look)
	}
	show, code, err := look(ctx)
	if err != nil {
		return err
	}
	if err := show(0); err != nil {
		return err
	}
	return exitCode(code)
}

func (w *watching) watch(ctx context.Context, a *app, look look) error {
	screen, inPlace := asTerminal(a.stdout)
	inPlace = inPlace && (a.globals.Format == "table" || a.globals.Format == "wide")
	if inPlace {
		fmt.Fprint(a.stdout, enterScreen)
		defer fmt.Fprint(screen, leaveScreen)
	}
	tick := time.NewTicker(w.Interval)
	defer tick.Stop()
	code := exitOK
	for first := true; ; first = false {
		show, seen, err := look(ctx)
		if ctx.Err() != nil {
			return exitCode(code) // what was seen last counts, not what was interrupted
		}
		if code = seen; err != nil {
			code = exitCodeOf(err)
			if !inPlace || code == exitUsage {
				return err
			}
			show = func(int) error { return err }
		}
		if inPlace {
			a.redraw(show)
		} else {
			if !first && a.globals.Format != "jsonl" && a.globals.Format != "json" && !a.quiet {
				a.printf("\n--- %s\n", a.now().Format(time.TimeOnly))
			}
			if err := show(0); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return exitCode(code)
		case <-tick.C:
		}
	}
}

// redraw shows on the screen what show prints, warnings included, in place of
// what was there. All goes out in one write, so that nothing flickers.
func (a *app) redraw(show func(lines int) error) {
	out, errOut := a.stdout, a.stderr
	defer func() { a.stdout, a.stderr = out, errOut }()
	height := 24
	if f, ok := asTerminal(out); ok {
		if _, h, err := term.GetSize(int(f.Fd())); err == nil && h > 1 {
			height = h
		}
	}
	var frame bytes.Buffer
	a.stdout, a.stderr = &frame, &frame
	fmt.Fprintf(&frame, "%s  (Ctrl-C ends)\n\n", a.now().Format(time.TimeOnly))
	if err := show(height - 2); err != nil {
		fmt.Fprintln(&frame, err)
	}
	lines := strings.Split(strings.TrimRight(frame.String(), "\n"), "\n")
	if len(lines) > height {
		lines = append(lines[:height-1], "...")
	}
	_, _ = io.WriteString(out, home+strings.Join(lines, endOfLine+"\r\n")+endOfLine+endOfScreen)
}
