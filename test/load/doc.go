// Package load puts traffic on a handoff service and counts every request that
// the service did not answer.
//
// It speaks HTTP/1.1 on raw connections and never retries, for a client with a
// retry hides what an upgrade loses. The requests are those that
// cmd/handoff-demo answers, and each answer is checked to the last byte.
//
//	l := load.Start(ctx, load.Options{Network: "tcp", Address: "127.0.0.1:8080"})
//	// upgrade the service, several times
//	report := l.Stop()
//	fmt.Println(report)
//	if err := report.Err(); err != nil {
//		// a request failed, or none was made
//	}
//
// # Kinds of traffic
//
//   - [New]: a connection for each request, GET /.
//   - [Arrivals]: new connections at a fixed rate, however the service answers, each
//     with one GET / and "Connection: close". What became of each is in
//     [Report.Arrivals], with the times in which nobody answered.
//   - [KeepAlive]: a pool of connections that are kept, POST / with a body at
//     random intervals. Some requests are written in two parts, some connections
//     are opened long before their first request.
//   - [Pool]: the same with small requests, for a pool that is large and mostly
//     idle.
//   - [Spare]: connections as a load balancer has them in reserve. They are opened,
//     carry nothing for a while, then a few requests, and the client closes them.
//   - [Torn]: POST / in two to four pieces, cut in the first line, in the empty line
//     after the header, in the body, with pauses between.
//   - [ByteByByte]: POST /, one byte at a time.
//   - [Pipelined]: two to five requests before the first answer is read, at once or
//     in pieces that do not end where a request does.
//   - [Slow]: kept connections, GET /sleep.
//   - [Idle]: connections that carry one request and are then held open.
//   - [Download]: kept connections, GET /bytes.
//   - [Stream]: server-sent events, GET /stream.
//   - [WebSocket]: messages that must come back, GET /ws.
//
// # What is a failure
//
// Connection refused, reset, closed before the answer was complete, no answer in
// time, a status other than 200, a wrong body. A stream may end with the
// goodbye event, a WebSocket with a close frame; anything else is a failure.
//
// An answer with "Connection: close" is none: the server announced it, the next
// request uses a new connection ([Counters.Announced]). Where it is not the
// answer to the last of pipelined requests, those behind it have failed: without a
// retry they are lost. Neither is an orderly close of a connection that carries no
// request, if the client saw it before it wrote; but a service that keeps its
// promises does not do that, so it is counted apart ([Counters.Closed];
// [Report.ClosedByServer] adds up both).
//
// The client looks as late as it can: it reads between the requests, and asks the
// kernel once more before it writes. What arrives after that crosses the request on
// the wire, and the request is lost.
package load
