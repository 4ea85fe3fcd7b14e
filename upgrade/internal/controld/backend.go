package controld

import (
	"context"

	"github.com/hdctl/handoff/upgrade/control"
)

// Backend does what clients ask for. Its methods are called by many goroutines
// at once. A panic in one of them costs the client its answer, not the service
// its life.
type Backend interface {
	// Version says what runs. Every answer has it in its headers: it must be
	// cheap, and must not block.
	Version() control.Version

	// Status returns a snapshot, without blocking. The result is only read.
	Status() *control.Status

	// Upgrade runs an upgrade, or joins one, and returns its result. It calls
	// emit for each event on the way, from the calling goroutine, and not
	// after it has returned. A refusal is a result with control.OutcomeRefused
	// and an error.
	//
	// ctx ends when the client is gone, or too slow, or when the server is
	// closed. The upgrade goes on all the same; Upgrade should then return
	// soon, with a result or without.
	Upgrade(ctx context.Context, req control.UpgradeRequest, p Peer, emit func(control.Event)) *control.Result

	// Events calls emit for each event that is remembered, and with follow
	// for those that come, until ctx ends. When emit returns an error the
	// client is gone, and Events has to return.
	Events(ctx context.Context, follow bool, emit func(control.Event) error) error
}
