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

// watch shows the status until the context ends; the exit status is that of the
// last look.
func (c *statusCmd) watch(ctx context.Context, a *app) error {
	screen, inPlace := asTerminal(a.stdout)
	inPlace = inPlace && (a.globals.Format == "table" || a.globals.Format == "wide")
	if inPlace {
		fmt.Fprint(a.stdout, enterScreen)
		defer fmt.Fprint(screen, leaveScreen)
	}
	tick := time.NewTicker(c.Interval)
	defer tick.Stop()
	code := exitOK
	for first := true; ; first = false {
		reports, err := c.look(ctx, a)
		if ctx.Err() != nil {
			return exitCode(code) // what was seen last counts, not what was interrupted
		}
		if err == nil {
			code = worst(reports)
		} else {
			code = exitCodeOf(err)
			if !inPlace || code == exitUsage {
				return err
			}
		}
		if inPlace {
			a.redraw(func() error {
				if err != nil {
					a.printf("%s\n", err)
					return nil
				}
				return c.show(a, reports)
			})
		} else {
			if !first && a.globals.Format != "jsonl" && a.globals.Format != "json" && !a.quiet {
				a.printf("\n--- %s\n", a.now().Format(time.TimeOnly))
			}
			if err := c.show(a, reports); err != nil {
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

// redraw shows on the screen what show prints, in place of what was there. All
// goes out in one write, so that nothing flickers.
func (a *app) redraw(show func() error) {
	out := a.stdout
	defer func() { a.stdout = out }()
	var frame bytes.Buffer
	a.stdout = &frame
	fmt.Fprintf(&frame, "%s  (Ctrl-C ends)\n\n", a.now().Format(time.TimeOnly))
	if err := show(); err != nil {
		fmt.Fprintln(&frame, err)
	}
	height := 24
	if f, ok := asTerminal(out); ok {
		if _, h, err := term.GetSize(int(f.Fd())); err == nil && h > 1 {
			height = h
		}
	}
	lines := strings.Split(strings.TrimRight(frame.String(), "\n"), "\n")
	if len(lines) > height {
		lines = append(lines[:height-1], "...")
	}
	_, _ = io.WriteString(out, home+strings.Join(lines, endOfLine+"\r\n")+endOfLine+endOfScreen)
}
