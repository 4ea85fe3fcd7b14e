package link

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Limits of a frame. Both ends have them, so raising one needs a new version of
// the protocol, or a receiver that was raised a release earlier.
const (
	// MaxFrame is the largest frame, in bytes. It is well below the default
	// send buffer of a unix socket (net.core.wmem_default, 208 KiB), above
	// which the kernel refuses a datagram for good.
	MaxFrame = 64 << 10

	// MaxFiles is the largest number of descriptors with one message. The
	// kernel's own limit is 253 (SCM_MAX_FD).
	MaxFiles = 16

	// maxKind is the longest name of a kind: it is echoed to the peer, and
	// logged.
	maxKind = 64
)

// ErrTooLarge is returned, wrapped, for a message that does not fit a frame, or
// has too many files. The same message will never fit.
var ErrTooLarge = errors.New("link: message too large")

// FrameError says that a datagram was received and refused. Its descriptors are
// closed, and the link is as good as before.
type FrameError struct {
	Kind Kind // "" where the frame did not get so far as to say it
	// Message is set where only the descriptors were wrong: more or fewer came
	// than were announced, or this process had no room for them. So an [Offer]
	// that lost its connection on the way can be refused by its number.
	Message Message
	Err     error
}

// Error says what was wrong with the frame.
func (e *FrameError) Error() string {
	if e.Kind == "" {
		return fmt.Sprintf("refuse a message: %v", e.Err)
	}
	return fmt.Sprintf("refuse message %q: %v", string(e.Kind), e.Err)
}

// Unwrap returns the cause.
func (e *FrameError) Unwrap() error { return e.Err }

// Encode makes the frame of m, for files descriptors. Errors wrap
// [ErrTooLarge], or say what is wrong with m.
func Encode(m Message, files int) ([]byte, error) {
	if m == nil {
		return nil, errors.New("no message")
	}
	if files < 0 || files > MaxFiles {
		return nil, fmt.Errorf("%w: %d file descriptors, at most %d", ErrTooLarge, files, MaxFiles)
	}
	if c, ok := m.(checker); ok {
		if err := c.check(files); err != nil {
			return nil, err
		}
	}
	frame, err := json.Marshal(struct {
		Kind Kind    `json:"kind"`
		FDs  int     `json:"fds,omitempty"`
		Body Message `json:"body"`
	}{m.Kind(), files, m})
	if err != nil {
		return nil, err
	}
	if len(frame) > MaxFrame {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(frame), MaxFrame)
	}
	return frame, nil
}

// Decode takes a frame apart: the message, and the number of descriptors that
// the sender put with it. The message does not refer to the frame's memory. Every
// error is a [*FrameError].
//
// A kind that is not known is no error, but an [Unknown] that has Unanswered set.
func Decode(frame []byte) (m Message, files int, err error) {
	var envelope struct {
		Kind Kind            `json:"kind"`
		FDs  int             `json:"fds"`
		Body json.RawMessage `json:"body"`
	}
	switch {
	case len(frame) == 0:
		return nil, 0, &FrameError{Err: errors.New("empty frame")}
	case len(frame) > MaxFrame:
		return nil, 0, &FrameError{Err: fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(frame), MaxFrame)}
	}
	if err := json.Unmarshal(frame, &envelope); err != nil {
		return nil, 0, &FrameError{Err: err}
	}
	kind := envelope.Kind
	switch {
	case kind == "":
		return nil, 0, &FrameError{Err: errors.New("no kind")}
	case len(kind) > maxKind:
		return nil, 0, &FrameError{Err: fmt.Errorf("name of the kind has %d bytes, at most %d", len(kind), maxKind)}
	case envelope.FDs < 0:
		return nil, 0, &FrameError{Kind: kind, Err: fmt.Errorf("%d file descriptors", envelope.FDs)}
	}
	m, err = decodeBody(kind, envelope.Body)
	if err != nil {
		return nil, 0, &FrameError{Kind: kind, Err: err}
	}
	if c, ok := m.(checker); ok {
		if err := c.check(envelope.FDs); err != nil {
			return nil, 0, &FrameError{Kind: kind, Err: err}
		}
	}
	return m, envelope.FDs, nil
}

func decodeBody(kind Kind, body []byte) (Message, error) {
	switch kind {
	case KindHello:
		return decodeAs[Hello](body)
	case KindRefuse:
		return decodeAs[Refuse](body)
	case KindReady:
		return decodeAs[Ready](body)
	case KindStage:
		return decodeAs[Stage](body)
	case KindStaged:
		return decodeAs[Staged](body)
	case KindRetire:
		return decodeAs[Retire](body)
	case KindNumbers:
		return decodeAs[Numbers](body)
	case KindStalled:
		return decodeAs[Stalled](body)
	case KindServe:
		return decodeAs[Serve](body)
	case KindServing:
		return decodeAs[Serving](body)
	case KindConfirmed:
		return decodeAs[Confirmed](body)
	case KindMeet:
		return decodeAs[Meet](body)
	case KindReport:
		return decodeAs[Report](body)
	case KindHurry:
		return decodeAs[Hurry](body)
	case KindAdopt:
		return decodeAs[Adopt](body)
	case KindOffer:
		return decodeAs[Offer](body)
	case KindAnswer:
		return decodeAs[Answer](body)
	case KindList:
		return decodeAs[List](body)
	case KindStopping:
		return decodeAs[Stopping](body)
	case KindUnknown:
		return decodeAs[Unknown](body)
	}
	return Unknown{Name: string(kind), Unanswered: true}, nil
}

// decodeAs accepts a body that is missing: all fields of a message have a zero
// value, and check says where that is not good enough.
func decodeAs[M Message](body []byte) (Message, error) {
	var m M
	if len(body) > 0 {
		if err := json.Unmarshal(body, &m); err != nil {
			return nil, err
		}
	}
	return m, nil
}
