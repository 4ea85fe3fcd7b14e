package transfer

// Places are room for connections in transit. As long as a connection is in transit
// nobody serves it, so their number bounds the time for which a request can wait.
// They outlive a Sender: there may be one after the other, for the same connections.
//
// A place is taken by sending to the channel, in a select with whatever ends the
// waiting, or by TryAcquire. Whoever has got one calls Release after Give.
type Places chan struct{}

// NewPlaces makes n places.
func NewPlaces(n int) Places { return make(Places, n) }

// TryAcquire takes a place, if one is free.
func (p Places) TryAcquire() bool {
	select {
	case p <- struct{}{}:
		return true
	default:
		return false
	}
}

// Release gives a place back.
func (p Places) Release() {
	select {
	case <-p:
	default:
		panic("transfer: released a place that nobody had")
	}
}
