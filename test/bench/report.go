package main

import (
	"encoding/json"
	"net"
	"os"
	"time"
)

// reportEnv is the path of the socket on which services report to the bench.
const reportEnv = "HANDOFF_BENCH_REPORT"

// Events in the life of a generation.
const (
	eventListening = "listening"
	eventFailed    = "failed" // an upgrade
	eventExited    = "exited" // about to
)

// event is one datagram. Standard output will not do: an upgrade looks at what a
// new process prints.
type event struct {
	PID     int
	Event   string
	Time    time.Time
	Address string        `json:",omitempty"`
	CPU     time.Duration `json:",omitempty"` // of the whole life
	Message string        `json:",omitempty"`
}

// reporter is the end of the service.
type reporter struct{ conn net.Conn }

func newReporter() (*reporter, error) {
	conn, err := net.Dial("unixgram", os.Getenv(reportEnv))
	if err != nil {
		return nil, err
	}
	return &reporter{conn}, nil
}

func (r *reporter) send(e event) error {
	e.PID, e.Time = os.Getpid(), time.Now()
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	_, err = r.conn.Write(text)
	return err
}

func (r *reporter) listening(a net.Addr) error {
	return r.send(event{Event: eventListening, Address: a.String()})
}

func (r *reporter) close() { _ = r.conn.Close() }
