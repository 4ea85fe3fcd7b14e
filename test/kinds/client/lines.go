package client

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
)

// lines is the protocol of raw connections and sessions: a line is answered with
// "GENERATION COUNT line".
type lines struct {
	net.Conn
	in *bufio.Reader
}

func openLines(ctx context.Context, dial Dial) (wire, error) {
	c, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	return &lines{c, bufio.NewReader(c)}, nil
}

func (l *lines) send(_ context.Context, text string) error {
	_, err := io.WriteString(l, text+"\n")
	return err
}

func (l *lines) receive() (Answer, Goodbye, error) {
	for goodbye := None; ; {
		line, err := l.in.ReadString('\n')
		switch {
		case err != nil:
			return Answer{}, goodbye, err
		case line == "goodbye\n":
			goodbye = Line
		case goodbye == None:
			a, err := parseLine(strings.TrimSuffix(line, "\n"))
			return a, None, err
		} // what crosses a goodbye is dropped
	}
}

func (l *lines) close() { l.Close() }

// parseLine reads "GENERATION COUNT text".
func parseLine(line string) (Answer, error) {
	f := strings.SplitN(line, " ", 3)
	if len(f) == 3 {
		generation, gerr := strconv.Atoi(f[0])
		count, cerr := strconv.Atoi(f[1])
		if gerr == nil && cerr == nil {
			return Answer{Generation: generation, Count: count, Text: f[2]}, nil
		}
	}
	return Answer{}, fmt.Errorf("answer %q is not GENERATION COUNT line", line)
}

// parseEcho reads "GENERATION: text".
func parseEcho(message string) (Answer, error) {
	number, text, found := strings.Cut(message, ": ")
	generation, err := strconv.Atoi(number)
	if !found || err != nil {
		return Answer{}, fmt.Errorf("answer %q is not GENERATION: text", message)
	}
	return Answer{Generation: generation, Text: text}, nil
}
