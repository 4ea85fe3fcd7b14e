package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// stage is where the show is seen: headings, words, commands as they are typed,
// and their output.
type stage struct {
	color bool
	start time.Time

	mu  sync.Mutex
	out io.Writer
}

func newStage(out io.Writer, color bool) *stage {
	return &stage{out: out, color: color, start: time.Now()}
}

// Styles of text, as a terminal knows them.
const (
	bold  = "1"
	faint = "2"
	red   = "31;1"
	green = "32;1"
	blue  = "36"
)

func (s *stage) paint(style, text string) string {
	if !s.color || text == "" {
		return text
	}
	return "\x1b[" + style + "m" + text + "\x1b[0m"
}

func (s *stage) line(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintln(s.out, text)
}

// heading begins an act.
func (s *stage) heading(format string, args ...any) {
	at := fmt.Sprintf("[%4.1fs]", time.Since(s.start).Seconds())
	s.line("\n" + s.paint(faint, at) + " " + s.paint(bold, fmt.Sprintf(format, args...)))
}

// say explains.
func (s *stage) say(format string, args ...any) { s.line("  " + fmt.Sprintf(format, args...)) }

// good says that something was as it should be.
func (s *stage) good(format string, args ...any) {
	s.line("  " + s.paint(green, "ok") + " " + fmt.Sprintf(format, args...))
}

// failure says why the demo failed.
func (s *stage) failure(err error) {
	s.line("\n" + s.paint(red, "FAILED") + " " + err.Error())
}

// typed shows a command line.
func (s *stage) typed(prompt string, args ...string) {
	quoted := make([]string, len(args))
	for i, a := range args {
		quoted[i] = a
		if a == "" || strings.ContainsAny(a, " \t*?$'\"\\|&;()<>") {
			quoted[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
	}
	s.line("  " + s.paint(faint, prompt) + " " + s.paint(blue, strings.Join(quoted, " ")))
}

// outcome is how a command ended.
type outcome struct {
	args    []string
	code    int // -1: it could not run, or was killed
	output  string
	elapsed time.Duration
	cause   error
}

// err is nil if the command exited with 0.
func (o outcome) err() error {
	if o.cause == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", strings.Join(o.args, " "), o.cause)
}

// run runs a command and shows what it prints, as it prints it.
func (s *stage) run(cmd *exec.Cmd) outcome {
	var output bytes.Buffer
	w := &indenter{stage: s, copy: &output}
	cmd.Stdout, cmd.Stderr = w, w // one writer: os/exec writes to it from one goroutine
	start := time.Now()
	err := cmd.Run()
	w.flush()
	o := outcome{args: cmd.Args, code: -1, output: output.String(), elapsed: time.Since(start), cause: err}
	if cmd.ProcessState != nil {
		o.code = cmd.ProcessState.ExitCode()
	}
	return o
}

// ended shows how a command ended.
func (s *stage) ended(o outcome) {
	style := faint
	if o.code != 0 {
		style = red
	}
	s.line("    " + s.paint(style, fmt.Sprintf("exit status %d after %.2f s", o.code, o.elapsed.Seconds())))
}

// indenter shows the output of a command, line by line.
type indenter struct {
	stage *stage
	copy  *bytes.Buffer
	part  []byte // of a line
}

func (w *indenter) Write(p []byte) (int, error) {
	w.copy.Write(p)
	w.part = append(w.part, p...)
	for {
		line, rest, found := bytes.Cut(w.part, []byte("\n"))
		if !found {
			return len(p), nil
		}
		w.stage.line("    " + string(line))
		w.part = rest
	}
}

func (w *indenter) flush() {
	if len(w.part) > 0 {
		w.stage.line("    " + string(w.part))
		w.part = nil
	}
}

// oneLine is the text of an error without line breaks.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", ", ") }

// cause is why a context ended, or err if it has not.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// splitLines splits text that ends with a line break, as texts do.
func splitLines(text string) []string {
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}
