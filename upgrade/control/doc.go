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
//	GET  /v1/status     a [Status]
//	GET  /v1/version    a [Version]
//	POST /v1/upgrade    an [UpgradeRequest]; answers with one [Line] of JSON a
//	                    line: events as they happen, the [Result] last
//	GET  /v1/events     one [Line] of JSON a line: the remembered events;
//	                    with ?follow=1 those that follow, too
//
// # Errors
//
// Every refusal is an [Error] with a stable code, wrapped as {"error": …}, and
// an HTTP status: 400, 403, 404, 405, 409 (an upgrade is in progress), 412 (the
// service is not ready, or the generation is not the main one), 413, 500, 503
// (too many connections, or the service is stopping), and what net/http says of a
// request that is none. A result that is no success ends a stream with status 200,
// since the stream had begun.
//
// # Stability
//
// Within /v1/ fields are only added, never renamed or removed. A client ignores
// the fields that it does not know; so does the service.
package control
