package controld

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hdctl/handoff/upgrade/control"
)

// Bounds of a request's fields.
const (
	maxReason  = 256          // bytes
	maxSeconds = 24 * 60 * 60 // of a timeout
	minSeconds = 0.001        // less would round to 0, which means something else
)

// decodeUpgrade reads the body of an upgrade request. The request that it
// returns is complete, with defaults, and valid: Wait and Via are set, Timeout
// is 0 or between a millisecond and a day, Reason can be printed anywhere.
//
// For this and the other bodies: an empty one is a request with defaults. Fields
// that this version does not know are ignored: an older service has to do with
// what it understands.
func decodeUpgrade(body []byte) (control.UpgradeRequest, *control.Error) {
	var req control.UpgradeRequest
	if e := decodeObject(body, &req); e != nil {
		return control.UpgradeRequest{}, e
	}
	switch req.Wait {
	case "":
		req.Wait = control.WaitConfirmed
	case control.WaitConfirmed, control.WaitDrained:
	default:
		return control.UpgradeRequest{}, badRequest("field wait: %.40q is none of %q and %q",
			req.Wait, control.WaitConfirmed, control.WaitDrained)
	}
	if e := checkVia(&req.Via); e != nil {
		return control.UpgradeRequest{}, e
	}
	if e := checkSeconds("timeout_s", &req.Timeout); e != nil {
		return control.UpgradeRequest{}, e
	}
	req.Reason = printable(req.Reason, maxReason)
	return req, nil
}

// decodeDrain reads the body of a drain request: Via is set, Reason can be
// printed anywhere.
func decodeDrain(body []byte) (control.DrainRequest, *control.Error) {
	var req control.DrainRequest
	if e := decodeObject(body, &req); e != nil {
		return control.DrainRequest{}, e
	}
	if e := checkVia(&req.Via); e != nil {
		return control.DrainRequest{}, e
	}
	req.Reason = printable(req.Reason, maxReason)
	return req, nil
}

// decodeEnd reads the body of an end request: Via is set, Generation is 0 or
// positive, Grace is -1, which is none, 0, which is the default, or between a
// millisecond and a day.
func decodeEnd(body []byte) (control.EndRequest, *control.Error) {
	var req control.EndRequest
	if e := decodeObject(body, &req); e != nil {
		return control.EndRequest{}, e
	}
	if req.Generation < 0 {
		return control.EndRequest{}, badRequest("field generation: %d is no generation", req.Generation).
			WithHint("generations are numbered from 1; 0 is all that drain")
	}
	if e := checkVia(&req.Via); e != nil {
		return control.EndRequest{}, e
	}
	if req.Grace < 0 {
		req.Grace = -1
	} else if e := checkSeconds("grace_s", &req.Grace); e != nil {
		return control.EndRequest{}, e
	}
	return req, nil
}

// decodeObject decodes a body, a JSON object or nothing, into the struct v
// points to. After an error that may be half done.
func decodeObject(body []byte, v any) *control.Error {
	if body = bytes.TrimSpace(body); len(body) == 0 {
		return nil
	}
	// Otherwise null would pass for a request.
	if body[0] != '{' {
		return badRequest("the body is not a JSON object")
	}
	if err := json.Unmarshal(body, v); err != nil {
		return jsonError(err)
	}
	return nil
}

// checkVia checks what the client says that it is, and sets the default.
func checkVia(via *string) *control.Error {
	switch *via {
	case "":
		*via = control.ViaAPI
	case control.ViaSystemctl, control.ViaHdctl, control.ViaAPI:
	default:
		return badRequest("field via: %.40q is none of %q, %q and %q",
			*via, control.ViaSystemctl, control.ViaHdctl, control.ViaAPI)
	}
	return nil
}

// checkSeconds checks a length of time that is 0 if the client does not care.
func checkSeconds(field string, t *float64) *control.Error {
	// The condition is true for a NaN, should JSON ever have one.
	if *t != 0 && !(*t >= minSeconds && *t <= maxSeconds) {
		return badRequest("field %s: %g is neither 0 nor between %g and %d seconds",
			field, *t, minSeconds, maxSeconds)
	}
	if *t == 0 {
		*t = 0 // without a sign: -0 is JSON, too
	}
	return nil
}

func badRequest(format string, args ...any) *control.Error {
	return control.Errorf(control.CodeBadRequest, format, args...)
}

// jsonError says in a user's words what encoding/json found.
func jsonError(err error) *control.Error {
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return badRequest("field %s: want %s, got %.40s", e.Field, kindName(e.Type), e.Value)
	}
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		return badRequest("the body is not JSON: %v, at byte %d", e, e.Offset)
	}
	return badRequest("the body is not JSON: %v", err)
}

func kindName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Float64:
		return "a number"
	case reflect.Int:
		return "a whole number"
	case reflect.Bool:
		return "true or false"
	default:
		return "a string"
	}
}

// printable makes s fit for a terminal, a log and a table: one line, no control
// characters, nothing that changes the direction of writing, valid UTF-8, at
// most limit bytes.
func printable(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return utf8.RuneError
		}
		return r
	}, s)
	s = strings.TrimSpace(s)
	if len(s) > limit {
		s = s[:limit]
		// Not half a character at the end.
		for len(s) > 0 {
			if r, size := utf8.DecodeLastRuneInString(s); r != utf8.RuneError || size != 1 {
				break
			}
			s = s[:len(s)-1]
		}
		s = strings.TrimRight(s, " ")
	}
	return s
}
