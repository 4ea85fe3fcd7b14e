package control

import (
	"context"
	"net/http"
)

// Drain closes the door of the serving generation without an upgrade, or opens it
// again, and returns the status after that. It does not wait for what is open.
//
// An error of [CodeUnknown], here and of the other commands, leaves open whether
// it was done: ask for the status.
func (c *Client) Drain(ctx context.Context, req DrainRequest) (*Status, error) {
	return command[Status](ctx, c, "/v1/drain", req)
}

// End ends the drain of old generations before its deadline, and returns those
// that were told to. It does not wait until they have ended.
func (c *Client) End(ctx context.Context, req EndRequest) (*EndResult, error) {
	return command[EndResult](ctx, c, "/v1/end", req)
}

// Pause has the service refuse upgrades, or not any more, and returns the status
// after that. An upgrade in progress goes on; an automatic one stays at its step.
func (c *Client) Pause(ctx context.Context, req PauseRequest) (*Status, error) {
	return command[Status](ctx, c, "/v1/pause", req)
}

// Reconfigure has the service read its configuration again, and returns when the
// new one is in force. An error of [CodeReconfigure] is the service's own: the
// configuration is the one from before. A service that offers no such thing
// answers with [CodeUnsupported].
func (c *Client) Reconfigure(ctx context.Context, req ReconfigureRequest) (*ReconfigureResult, error) {
	return command[ReconfigureResult](ctx, c, "/v1/reconfigure", req)
}

// command sends a request that is answered with one R.
func command[R any](ctx context.Context, c *Client, path string, req any) (*R, error) {
	r := new(R)
	if err := c.call(ctx, http.MethodPost, path, req, r); err != nil {
		return nil, err
	}
	return r, nil
}
