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

// decodeDrain reads the body of a drain request: Via is set, Reason can be
// printed anywhere.
func decodeDrain(body []byte) (control.DrainRequest, *control.Error) {
	return decode(body, func(req *control.DrainRequest) *control.Error { return checkWho(&req.Reason, &req.Via) })
}

// decodePause reads the body of a pause request, as decodeDrain does.
func decodePause(body []byte) (control.PauseRequest, *control.Error) {
	return decode(body, func(req *control.PauseRequest) *control.Error { return checkWho(&req.Reason, &req.Via) })
}

// decodeReconfigure reads the body of a reconfigure request, as decodeDrain does.
func decodeReconfigure(body []byte) (control.ReconfigureRequest, *control.Error) {
	return decode(body, func(req *control.ReconfigureRequest) *control.Error { return checkWho(&req.Reason, &req.Via) })
}

// decodeEnd reads the body of an end request: Via is set, Generation is 0 or
// positive, Grace is -1, which is none, 0, which is the default, or between a
// millisecond and a day.
func decodeEnd(body []byte) (control.EndRequest, *control.Error) {
	return decode(body, func(req *control.EndRequest) *control.Error {
		if req.Generation < 0 {
			return badRequest("field generation: %d is no generation", req.Generation).
				WithHint("generations are numbered from 1; 0 is all that drain")
		}
		if e := checkVia(&req.Via); e != nil {
			return e
		}
		if req.Grace < 0 {
			req.Grace = -1
			return nil
		}
		return checkSeconds("grace_s", &req.Grace)
	})
}

// decode reads the body of a request and has check look at its fields, and set the
// defaults. What it returns with an error is zero.
//
// An empty body is a request with defaults. Fields that this version does not know
// are ignored: an older service has to do with what it understands.
func decode[T any](body []byte, check func(*T) *control.Error) (T, *control.Error) {
	var req, none T
	if e := decodeObject(body, &req); e != nil {
		return none, e
	}
	if e := check(&req); e != nil {
		return none, e
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

// checkWho checks who asks and makes the reason fit for the records.
func checkWho(reason, via *string) *control.Error {
	*reason = printable(*reason, maxReason)
	return checkVia(via)
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
	noSign(t)
	return nil
}

// noSign makes -0, which is JSON, too, a 0.
func noSign(v *float64) {
	if *v == 0 {
		*v = 0
	}
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
	case reflect.Slice:
		return "a list"
	case reflect.Struct:
		return "an object"
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
