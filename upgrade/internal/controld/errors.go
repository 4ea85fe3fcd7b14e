package controld

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/hdctl/handoff/upgrade/control"
)

// Content types of answers.
const (
	typeJSON  = "application/json"
	typeLines = "application/jsonl" // one JSON value a line
)

// refusal is the body of every answer that is not what was asked for.
type refusal struct {
	Error  *control.Error  `json:"error"`
	Result *control.Result `json:"result,omitempty"` // of an upgrade
}

// statusOf returns the HTTP status for an error. The package comment has the
// table.
func statusOf(code string) int {
	switch code {
	case control.CodeBadRequest:
		return http.StatusBadRequest
	case control.CodePermission, control.CodeBinary:
		return http.StatusForbidden
	case control.CodeNotFound, control.CodeGeneration:
		return http.StatusNotFound
	case control.CodeMethod:
		return http.StatusMethodNotAllowed
	case control.CodeInProgress, control.CodeCrowded, control.CodeHeld, control.CodePaused,
		control.CodeNotStaged, control.CodeNoPrevious:
		return http.StatusConflict
	case control.CodeNotMain, control.CodeNotServing, control.CodeContainer,
		control.CodeIncompatible, control.CodeStartFailed, control.CodeCheckFailed, control.CodeReconfigure:
		return http.StatusPreconditionFailed
	case control.CodeTooLarge:
		return http.StatusRequestEntityTooLarge
	case control.CodeStopping, control.CodeBusy:
		return http.StatusServiceUnavailable
	case control.CodeUnsupported:
		return http.StatusNotImplemented
	case control.CodeTimedOut:
		return http.StatusGatewayTimeout
	}
	return http.StatusInternalServerError
}

func errBusy() *control.Error {
	return control.Errorf(control.CodeBusy, "there are too many connections to the control socket").
		WithHint("try again; somebody may have left many clients running that follow the events")
}

func errClosed() *control.Error {
	return control.Errorf(control.CodeStopping, "this generation of the service is ending").
		WithHint("ask for the status to see who serves now")
}

func errNoResult() *control.Error {
	return control.Errorf(control.CodeInternal, "the request ended without a result")
}

// setHeader sets what every answer has.
func setHeader(h http.Header, v control.Version, contentType string) {
	h.Set(control.HeaderAPI, strconv.Itoa(v.APIVersion))
	h.Set(control.HeaderVersion, v.Library)
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-store")
	h.Set("Connection", "close") // see the package comment
}

// encode returns v as one line of JSON.
func encode(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false) // people read this: "6 -> 7", not "6 -\u003e 7"
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encode the answer: %w", err)
	}
	return buf.Bytes(), nil
}

// rawError returns a complete HTTP answer for a connection on which there is
// nothing to answer to.
func rawError(v control.Version, status int, e *control.Error) []byte {
	body, err := encode(refusal{Error: e})
	if err != nil {
		return nil // cannot be: there are only strings in it
	}
	resp := http.Response{
		StatusCode:    status,
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        make(http.Header),
		Body:          io.NopCloser(bytes.NewReader(body)),
		ContentLength: int64(len(body)),
	}
	setHeader(resp.Header, v, typeJSON)
	var buf bytes.Buffer
	if err := resp.Write(&buf); err != nil {
		return nil // nor this: it is memory
	}
	return buf.Bytes()
}
