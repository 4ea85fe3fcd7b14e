package control

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"time"
)

// Upgrade asks for an upgrade and waits for its end. on, which may be nil, is
// called for each event on the way, by the calling goroutine.
//
// A nil error means that the new generation serves and is confirmed, or, if the
// request asked for less, that this is so: [OutcomeStaged] with a Stage,
// [OutcomeChecked] with DryRun, [OutcomeUnchanged] with IfChanged. Otherwise
// the error says why not, and the result is nil only if the context ended or if
// the service was never asked. Where the service gave none, the client makes
// one: [OutcomeRefused], or [OutcomeUnknown] if it went away or broke down in
// between. Only [Client.Status] can then tell what happened. A result without an
// Error, together with an error, is a success that was not asked for: an automatic
// upgrade is only staged if somebody has promoted it by hand.
//
// A context that ends stops the waiting, not the upgrade. To limit the upgrade
// itself, set the Timeout of the request.
//
// A request that waits in the queue is sent back when the upgrade before it has
// made another generation the main one; it is sent to that one then, with what
// is left of its time.
func (c *Client) Upgrade(ctx context.Context, req UpgradeRequest, on func(Event)) (*Result, error) {
	return c.rollout(ctx, rollout{
		path: "/v1/upgrade", timeout: req.Timeout, follow: req.Queue, good: req.fulfilled,
		request: func(timeout float64) any { req.Timeout = timeout; return req },
	}, on)
}

// fulfilled tells whether r is what was asked for.
func (req UpgradeRequest) fulfilled(r *Result) bool {
	switch {
	case req.IfChanged && r.Outcome == OutcomeUnchanged:
		return true
	case req.DryRun:
		return r.Outcome == OutcomeChecked
	case req.Stage != 0:
		return r.Outcome == OutcomeStaged
	}
	return r.Outcome == OutcomeConfirmed
}

// Promote gives a staged generation another share of the new connections, or all,
// and waits for that. on is as in [Client.Upgrade].
//
// A nil error means that it has the share, with [OutcomeStaged], or, where all was
// asked for, that it is confirmed. Otherwise the error says why not, and the result
// is as in [Client.Upgrade]. The request goes to whichever generation is the main
// one, also if that changes while it is on its way.
func (c *Client) Promote(ctx context.Context, req PromoteRequest, on func(Event)) (*Result, error) {
	want := OutcomeConfirmed
	if req.Share != 0 {
		want = OutcomeStaged
	}
	return c.rollout(ctx, rollout{
		path: "/v1/promote", timeout: req.Timeout, follow: true,
		good:    func(r *Result) bool { return r.Outcome == want },
		request: func(timeout float64) any { req.Timeout = timeout; return req },
	}, on)
}

// Rollback ends an upgrade in progress in favour of the old generation, or runs the
// previous version again, and waits for that. on is as in [Client.Upgrade].
//
// A nil error means that the old version serves: with [OutcomeRolledBack] it never
// stopped, or serves again, and with [OutcomeConfirmed] it runs in a new generation.
// Otherwise the error says why not, also where the upgrade in progress was confirmed
// before it could be ended, and the result is as in [Client.Upgrade]. The
// request goes to whichever generation is the main one, also if that changes while
// it is on its way.
func (c *Client) Rollback(ctx context.Context, req RollbackRequest, on func(Event)) (*Result, error) {
	return c.rollout(ctx, rollout{
		path: "/v1/rollback", timeout: req.Timeout, follow: true,
		// Confirmed without having been one, it is the upgrade that should not be.
		good: func(r *Result) bool {
			return r.Outcome == OutcomeRolledBack || r.Outcome == OutcomeConfirmed && r.Rollback
		},
		request: func(timeout float64) any { req.Timeout = timeout; return req },
	}, on)
}

// rollout is a request to which generation serves: its answer is events and a
// result.
type rollout struct {
	path    string
	request func(timeout float64) any // the body
	timeout float64                   // what the caller wants
	follow  bool                      // ask again where another generation is the main one
	good    func(*Result) bool        // it is what was asked for
}

// maxMoves is how often a request follows the main generation.
const maxMoves = 20

// rollout sends a request and waits for its result.
func (c *Client) rollout(ctx context.Context, ro rollout, on func(Event)) (*Result, error) {
	began, timeout := time.Now(), ro.timeout
	for range maxMoves {
		r, err := c.rolloutOnce(ctx, ro, ro.request(timeout), on)
		e, ok := errors.AsType[*Error](err)
		if !ok || !ro.follow || e.Code != CodeNotMain || r == nil || r.Outcome != OutcomeRefused {
			return r, err
		}
		if ro.timeout > 0 {
			if timeout = ro.timeout - time.Since(began).Seconds(); timeout <= 0 {
				late := Errorf(CodeTimedOut, "the time was over before it was its turn")
				return &Result{Outcome: OutcomeTimedOut, Error: late}, late
			}
		}
	}
	e := Errorf(CodeNotMain, "the main generation changed %d times while the request waited for its turn", maxMoves)
	return &Result{Outcome: OutcomeRefused, Error: e}, e
}

func (c *Client) rolloutOnce(ctx context.Context, ro rollout, body any, on func(Event)) (*Result, error) {
	resp, asked, err := c.do(ctx, http.MethodPost, ro.path, body)
	if !asked {
		return nil, err
	}
	if err != nil {
		return resultOf(err), err
	}
	defer resp.Body.Close()

	var result *Result
	err = c.lines(ctx, resp.Body, func(l Line) error {
		switch {
		case l.Event != nil:
			if on != nil {
				on(*l.Event)
			}
		case l.Error != nil:
			return l.Error
		case l.Result != nil:
			result = l.Result
			return errEnough
		}
		return nil
	})
	if err == nil && result == nil {
		err = c.lost(ctx, io.EOF)
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return &Result{Outcome: OutcomeUnknown, Error: e}, e // it had begun
	}
	if err != nil {
		return nil, err
	}
	switch {
	case ro.good(result):
		return result, nil
	case result.Error != nil:
		return result, result.Error
	case slices.Contains(successes(), result.Outcome):
		// Somebody else has decided meanwhile, or the service is older than what
		// it was asked for. The result is as true as ever.
		return result, Errorf(CodeInternal, "the request ended as %q, which is not what it asked for", result.Outcome)
	}
	result.Error = Errorf(CodeInternal, "the request ended as %q, without a reason", result.Outcome)
	return result, result.Error
}

// successes are the outcomes that come without an error.
func successes() []string {
	return []string{OutcomeConfirmed, OutcomeStaged, OutcomeChecked, OutcomeUnchanged}
}

// resultOf is the result that goes with an error that came instead of a stream.
func resultOf(err error) *Result {
	e, ok := errors.AsType[*Error](err)
	switch {
	case !ok:
		return nil
	case e.Code == CodeUnknown, e.Code == CodeInternal:
		return &Result{Outcome: OutcomeUnknown, Error: e}
	}
	return &Result{Outcome: OutcomeRefused, Error: e}
}
