package controld

import (
	"net"

	"github.com/hdctl/handoff/upgrade/control"
)

// What the tests of this package look at from outside.
var (
	DecodeUpgrade     = decodeUpgrade
	DecodePromote     = decodePromote
	DecodeRollback    = decodeRollback
	DecodeDrain       = decodeDrain
	DecodeEnd         = decodeEnd
	DecodePause       = decodePause
	DecodeReconfigure = decodeReconfigure
	DecodeFollow      = decodeFollow
	DecodeConns       = decodeConns
	DecodeHistory     = decodeHistory
	Encode            = encode
	Printable         = printable
	LookupGroup       = lookupGroup
	StatusOf          = statusOf
	Bind              = bind
	ListenPatiently   = listen
)

// Allows asks an authority.
func Allows(service, operator, uid int, gids ...int) bool {
	return authority{service, operator}.allows(uid, gids)
}

// PeerOf asks the kernel for the other end of c.
func PeerOf(c net.Conn) (Peer, error) { return authority{operator: -1}.peerOf(c) }

// Connections counts those that have a place, and those that are one too many.
func (s *Server) Connections() (served, surplus int) { return s.served.count(), s.surplus.count() }

// Routes lists "METHOD PATH" of all routes.
func (s *Server) Routes() []string {
	var all []string
	for _, r := range s.routes {
		all = append(all, r.method+" "+r.path)
	}
	return all
}

// Refusal is the body of an answer that is not what was asked for.
type Refusal struct {
	Error  *control.Error
	Result *control.Result
}
