package controld

import (
	"cmp"
	"fmt"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/hdctl/handoff/upgrade/control"
)

// Bounds of what an upgrade request may ask for.
const (
	maxSteps  = 20   // of an automatic upgrade
	maxBinary = 4096 // bytes, PATH_MAX: nothing longer is a path
)

// decodeUpgrade reads the body of an upgrade request. The request that it returns
// is complete, with defaults, and valid: Wait and Via are set, Timeout and
// StageTimeout are 0 or between a millisecond and a day, Reason can be printed
// anywhere, Stage is between 0 and 100, and 0 with Auto, Binary is empty or an
// absolute path that can be printed anywhere. For Auto see checkAuto.
func decodeUpgrade(body []byte) (control.UpgradeRequest, *control.Error) {
	return decode(body, func(req *control.UpgradeRequest) *control.Error {
		if req.Auto != nil && req.Stage != 0 {
			return badRequest("field auto excludes field stage_pct").
				WithHint("the first of the steps is the first share")
		}
		return cmp.Or(
			checkRollout(&req.Wait, &req.Timeout, &req.Reason, &req.Via),
			checkPercent("stage_pct", &req.Stage),
			checkSeconds("stage_timeout_s", &req.StageTimeout),
			checkAuto(req.Auto),
			checkBinary(req.Binary),
		)
	})
}

// decodePromote reads the body of a promote request: Share is between 0 and 100,
// the rest is as in an upgrade request.
func decodePromote(body []byte) (control.PromoteRequest, *control.Error) {
	return decode(body, func(req *control.PromoteRequest) *control.Error {
		return cmp.Or(
			checkRollout(&req.Wait, &req.Timeout, &req.Reason, &req.Via),
			checkPercent("share_pct", &req.Share),
		)
	})
}

// decodeRollback reads the body of a rollback request: all is as in an upgrade
// request.
func decodeRollback(body []byte) (control.RollbackRequest, *control.Error) {
	return decode(body, func(req *control.RollbackRequest) *control.Error {
		return checkRollout(&req.Wait, &req.Timeout, &req.Reason, &req.Via)
	})
}

// checkRollout checks what all requests have that are answered with a result, and
// sets the defaults.
func checkRollout(wait *string, timeout *float64, reason, via *string) *control.Error {
	switch *wait {
	case "":
		*wait = control.WaitConfirmed
	case control.WaitConfirmed, control.WaitDrained:
	default:
		return badRequest("field wait: %.40q is none of %q and %q",
			*wait, control.WaitConfirmed, control.WaitDrained)
	}
	return cmp.Or(checkSeconds("timeout_s", timeout), checkWho(reason, via))
}

// checkPercent checks a share that is 0 if there is none.
func checkPercent(field string, v *float64) *control.Error {
	// As in checkSeconds, for a NaN.
	if !(*v >= 0 && *v <= 100) {
		return badRequest("field %s: %g is not between 0 and 100 percent", field, *v)
	}
	noSign(v)
	return nil
}

// checkAuto checks how an upgrade decides by itself, or nil. There are at most
// maxSteps steps, each with a share of more than 0 and up to 100 and a time between
// a millisecond and a day; MinRequests is not negative, MaxErrors is between 0 and
// 100, and MaxSlowdown is 0 or at least 1.
func checkAuto(auto *control.Auto) *control.Error {
	if auto == nil {
		return nil
	}
	if n := len(auto.Steps); n > maxSteps {
		return badRequest("field auto.steps: %d steps are more than %d", n, maxSteps)
	}
	for i := range auto.Steps {
		step, field := &auto.Steps[i], fmt.Sprintf("auto.steps[%d]", i)
		if step.Share == 0 {
			return badRequest("field %s.share_pct: a step needs a share", field)
		}
		if step.Time == 0 {
			return badRequest("field %s.time_s: a step needs a time", field)
		}
		if e := cmp.Or(checkPercent(field+".share_pct", &step.Share), checkSeconds(field+".time_s", &step.Time)); e != nil {
			return e
		}
	}
	if auto.MinRequests < 0 {
		return badRequest("field auto.min_requests: %d is negative", auto.MinRequests)
	}
	if s := auto.MaxSlowdown; s != 0 && !(s >= 1) {
		return badRequest("field auto.max_slowdown: %g is neither 0 nor at least 1", s).
			WithHint("it is how many times as long an answer may take: 2 is the default")
	}
	noSign(&auto.MaxSlowdown)
	return checkPercent("auto.max_errors_pct", &auto.MaxErrors)
}

// checkBinary checks the path of another program, or "". What is there is for the
// service to see.
func checkBinary(path string) *control.Error {
	switch {
	case path == "":
		return nil
	case len(path) > maxBinary:
		return badRequest("field binary: a path has at most %d bytes, not %d", maxBinary, len(path))
	case !filepath.IsAbs(path):
		return badRequest("field binary: %.40q is not an absolute path", path).
			WithHint("the service has a working directory of its own")
	case printable(path, maxBinary) != path || strings.ContainsRune(path, utf8.RuneError):
		// It will be in the log, in STATUS= and on terminals. And JSON has no
		// bytes that are not UTF-8: decoded, they make the path of another file.
		return badRequest("field binary: %.40q has characters that cannot be printed", path).
			WithHint("give the file another name, or make a link to it")
	}
	return nil
}
