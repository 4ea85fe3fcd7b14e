package pulse

import (
	"sync/atomic"
	"unsafe"
)

// Slots is how many listening sockets a page has room for.
const Slots = 64

// size is the size of a page in bytes. It is a part of the layout, and not the
// page size of the machine, which may be larger.
const size = 4096

// magic begins each page. The version is that of the layout below: it changes
// with every change of it, also of [NBuckets], and two generations with
// different ones do without a page. Both run on one machine, so that the byte
// order is no question.
const (
	magic   = 0x65736c7570746668 // "hftpulse"
	version = 1
)

// layout is what the bytes of a page mean. All fields are atomic, and their
// offsets multiples of 8, which atomics need on 32-bit machines.
type layout struct {
	magic   atomic.Uint64
	version atomic.Uint64
	_       [48]byte
	slots   [Slots]slotLayout // at 64
	health  healthLayout      // at 2112
	_       [size - 64 - Slots*32 - 64 - NBuckets*8]byte
}

// slotLayout is 32 bytes, so that no slot straddles a cache line.
type slotLayout struct {
	accepts atomic.Uint64
	waiting atomic.Int64
	busy    atomic.Uint64 // not 0: busy
	_       [8]byte
}

// healthLayout has no counter of requests: that is the sum of the buckets and of
// untimed, which makes Observe cheaper, and the buckets never contradict it.
type healthLayout struct {
	errors  atomic.Uint64
	latency atomic.Int64 // sum, in ns

	// What Report has said, if reported is not 0.
	reported         atomic.Uint64
	reportedRequests atomic.Uint64
	reportedErrors   atomic.Uint64
	reportedLatency  atomic.Int64

	untimed atomic.Uint64 // requests that are in no bucket
	_       [8]byte
	buckets [NBuckets]atomic.Uint64 // at 2176
}

// These do not compile if the layout is not what its version says.
var (
	_ [size]byte = [unsafe.Sizeof(layout{})]byte{}
	_ [64]byte   = [unsafe.Offsetof(layout{}.slots)]byte{}
	_ [2112]byte = [unsafe.Offsetof(layout{}.health)]byte{}
	_ [64]byte   = [unsafe.Offsetof(healthLayout{}.buckets)]byte{}
)
