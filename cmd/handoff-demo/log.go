package main

import (
	"bytes"
	"io"
	"log/slog"
)

// newLogger logs to w. The journal knows the time of a line, and takes its
// priority from a prefix (sd-daemon(3)); info, its default, goes without one.
func newLogger(w io.Writer, journal bool) *slog.Logger {
	if !journal {
		return slog.New(slog.NewTextHandler(w, nil))
	}
	return slog.New(slog.NewTextHandler(priorityWriter{w}, &slog.HandlerOptions{
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))
}

// priorityWriter prefixes lines that begin with their level. A handler of slog
// writes each line in one call.
type priorityWriter struct{ w io.Writer }

func (p priorityWriter) Write(line []byte) (int, error) {
	prefix := ""
	switch {
	case bytes.HasPrefix(line, []byte("level=ERROR")):
		prefix = "<3>"
	case bytes.HasPrefix(line, []byte("level=WARN")):
		prefix = "<4>"
	}
	if _, err := p.w.Write(append([]byte(prefix), line...)); err != nil {
		return 0, err
	}
	return len(line), nil
}
