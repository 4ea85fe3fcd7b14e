package controld

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hdctl/handoff/upgrade/control"
)

// Bounds of a request's fields.
const (
	maxReason  = 256          // bytes
	maxTimeout = 24 * 60 * 60 // seconds
	minTimeout = 0.001        // seconds: less would round to 0, which means something else
)

// decodeUpgrade reads the body of an upgrade request. The request that it
// returns is complete, with defaults, and valid: Wait and Via are set, Timeout
// is 0 or between a millisecond and a day, Reason can be printed anywhere.
//
// An empty body is a request with defaults. Fields that this version does not
// know are ignored: an older service has to do with what it understands.
func decodeUpgrade(body []byte) (control.UpgradeRequest, *control.Error) {
	var req control.UpgradeRequest
	if body = bytes.TrimSpace(body); len(body) > 0 {
		// Otherwise null would pass for a request.
		if body[0] != '{' {
			return req, badRequest("the body is not a JSON object")
		}
		if err := json.Unmarshal(body, &req); err != nil {
			return control.UpgradeRequest{}, jsonError(err)
		}
	}
	switch req.Wait {
	case "":
		req.Wait = control.WaitConfirmed
	case control.WaitConfirmed, control.WaitDrained:
	default:
		return control.UpgradeRequest{}, badRequest("field wait: %.40q is none of %q and %q",
			req.Wait, control.WaitConfirmed, control.WaitDrained)
	}
	switch req.Via {
	case "":
		req.Via = control.ViaAPI
	case control.ViaSystemctl, control.ViaHdctl, control.ViaAPI:
	default:
		return control.UpgradeRequest{}, badRequest("field via: %.40q is none of %q, %q and %q",
			req.Via, control.ViaSystemctl, control.ViaHdctl, control.ViaAPI)
	}
	// The condition is true for a NaN, should JSON ever have one.
	if t := req.Timeout; t != 0 && !(t >= minTimeout && t <= maxTimeout) {
		return control.UpgradeRequest{}, badRequest("field timeout_s: %g is neither 0 nor between %g and %d seconds",
			t, minTimeout, maxTimeout)
	}
	if req.Timeout == 0 {
		req.Timeout = 0 // without a sign: -0 is JSON, too
	}
	req.Reason = printable(req.Reason, maxReason)
	return req, nil
}

// decodeFollow reads the query of an events request.
func decodeFollow(query string) (bool, *control.Error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return false, badRequest("the query of the address cannot be read")
	}
	if !values.Has("follow") {
		return false, nil
	}
	follow, err := strconv.ParseBool(values.Get("follow"))
	if err != nil {
		return false, badRequest("parameter follow: %.40q is neither 1 nor 0", values.Get("follow"))
	}
	return follow, nil
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
