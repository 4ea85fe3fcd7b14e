package link

import "fmt"

// Adopt asks a draining generation for its connections. Main to draining. With it
// comes one file, an end of a fresh link over which the two speak of nothing
// else: the draining generation sends an [Offer] for each connection that it can
// hand over, and gets an [Answer].
type Adopt struct {
	Generation int         `json:"generation"` // of the sender
	Listeners  []Adoptable `json:"listeners,omitempty"`
}

// Adoptable is a listener of the main generation whose server takes connections
// that another generation has accepted.
type Adoptable struct {
	Name     string `json:"name"`
	HTTP     bool   `json:"http,omitempty"`     // idle HTTP/1.1 connections
	Sessions bool   `json:"sessions,omitempty"` // connections with a [Session]
}

// Offer is a connection that the sender would like to give away. The connection
// itself is files[0]; with Session.File, files[1] is the session's data.
//
// It stays the sender's until an [Answer] says that it is adopted.
type Offer struct {
	ID       uint64   `json:"id"`                 // for the answer; unique on its link
	Listener string   `json:"listener"`           // name of the listener that accepted it
	Accepted int64    `json:"accepted,omitempty"` // when
	Moved    int64    `json:"moved,omitempty"`    // when bytes last went over it
	In       int64    `json:"in,omitempty"`       // bytes so far
	Out      int64    `json:"out,omitempty"`
	Label    string   `json:"label,omitempty"` // what the service says about it
	Fresh    bool     `json:"fresh,omitempty"` // it has just been accepted, and is the share of a staged generation
	Session  *Session `json:"session,omitempty"`
}

// Session is what the service knows about a connection, so that another process
// of it can go on in the middle.
type Session struct {
	Version int    `json:"version"` // of the format of the data, the service's own
	Data    []byte `json:"data,omitempty"`
	File    bool   `json:"file,omitempty"` // the data is in a sealed memfd instead: it is too large for a frame
}

// Answer decides an [Offer]. It is sent before one byte of the connection is
// read: who gets a refusal, or no answer at all, goes on as if nothing had been.
type Answer struct {
	ID      uint64 `json:"id"`
	Code    string `json:"code,omitempty"`    // "": adopted; else why not, for programs
	Message string `json:"message,omitempty"` // the same for people
}

// List asks a draining generation for a list of its connections, those that the
// fields select ("" selects all). Main to draining. With it comes one file, the
// writing end of a pipe, for the list: one JSON object a line.
type List struct {
	State    string `json:"state,omitempty"`
	Listener string `json:"listener,omitempty"`
}

// Kind returns [KindAdopt].
func (Adopt) Kind() Kind { return KindAdopt }

// Kind returns [KindOffer].
func (Offer) Kind() Kind { return KindOffer }

// Kind returns [KindAnswer].
func (Answer) Kind() Kind { return KindAnswer }

// Kind returns [KindList].
func (List) Kind() Kind { return KindList }

// Files returns how many files belong to the offer.
func (m Offer) Files() int {
	if m.Session != nil && m.Session.File {
		return 2
	}
	return 1
}

func (m Adopt) check(files int) error {
	if err := atLeast(1, files); err != nil {
		return err
	}
	return notNegative("generation", m.Generation)
}

func (m Offer) check(files int) error {
	if err := atLeast(m.Files(), files); err != nil {
		return err
	}
	if m.Session != nil {
		if err := notNegative("version of the session", m.Session.Version); err != nil {
			return err
		}
	}
	return notNegative("time or bytes", m.Accepted, m.Moved, m.In, m.Out)
}

func (m List) check(files int) error { return atLeast(1, files) }

// atLeast holds a message to the files that whoever gets it may use.
func atLeast(want, files int) error {
	if files < want {
		return fmt.Errorf("%d of %d file descriptors", files, want)
	}
	return nil
}
