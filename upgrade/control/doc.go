// Package control is the control API of a handoff service: its types, and a
// client for it.
//
// A service that uses package upgrade listens on a unix socket, by default
// /run/handoff/NAME/control.sock, and speaks HTTP and JSON there:
//
//	curl --unix-socket /run/handoff/app/control.sock http://app/v1/status
//
// The command hdctl is written with this package, and so can any other program
// be. It imports neither tableflip nor D-Bus.
//
//	c := control.Client{Socket: control.DefaultSocket("app")}
//	status, err := c.Status(ctx)
//
// # Requests
//
//	GET  /v1/status       a [Status]
//	GET  /v1/version      a [Version]
//	GET  /v1/events       one [Line] of JSON a line: the remembered events;
//	                      with ?follow=1 those that follow, too
//	GET  /v1/history      one [Line] of JSON a line: an [Entry] for each upgrade
//	                      on record, the newest first; with ?limit=N, up to
//	                      10000, not more than so many
//	GET  /v1/conns        one [Line] of JSON a line: the open connections, the
//	                      [ConnsEnd] last; with ?generation=, state= and
//	                      listener= those that match all of them
//	POST /v1/upgrade      an [UpgradeRequest]; answers with one [Line] of JSON a
//	                      line: events as they happen, the [Result] last
//	POST /v1/promote      a [PromoteRequest]; answers like upgrade
//	POST /v1/rollback     a [RollbackRequest]; answers like upgrade
//	POST /v1/drain        a [DrainRequest]; answers with the [Status] after it
//	POST /v1/end          an [EndRequest]; answers with the [EndResult]
//	POST /v1/pause        a [PauseRequest]; answers with the [Status] after it
//	POST /v1/reconfigure  a [ReconfigureRequest]; answers with the
//	                      [ReconfigureResult]
//
// A trial of a new version on a tenth of the new connections, by hand:
//
//	curl --unix-socket $SOCKET http://app/v1/upgrade -d '{"stage_pct":10}'
//	curl --unix-socket $SOCKET http://app/v1/status
//	curl --unix-socket $SOCKET http://app/v1/promote -d '{}'
//
// or, in place of the last one, http://app/v1/rollback. What a request asks for is
// checked before anything is done: a share of 150 % is a bad_request.
//
// Who can connect may ask for the status, the version, the events and the history.
// The rest is for root, the service's user and its operator group: connections, too,
// since they show who talks to whom.
//
// A list of connections without its [ConnsEnd] is not complete. An [Error] may
// come in its place, or at the end of a history. Parameters of /v1/conns and
// /v1/history that a service does not know are refused, so that nobody takes a list
// of all for one of some.
//
// # Errors
//
// Every refusal is an [Error] with a stable code, wrapped as {"error": …}, and
// an HTTP status: 400, 403 (also for a file that the service may not run), 404
// (also for a generation), 405, 409 (an upgrade is in progress, too many
// generations drain, the door is closed, upgrades are paused, there is nothing to
// promote or to roll back to), 412 (the service is not ready, the generation is not
// the main one, or what was tried did not work), 413, 500, 501 (the service does not
// offer this), 503 (too many connections, or the service is stopping), and what
// net/http says of a request that is none. A result that is no success ends a stream
// with status 200, since the stream had begun.
//
// # Stability
//
// Within /v1/ fields are only added, never renamed or removed. A client ignores
// the fields that it does not know; so does the service.
package control
