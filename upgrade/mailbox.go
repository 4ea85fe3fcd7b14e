package upgrade

import "sync"

// mailbox hands work to the driver. It is not bounded: who posts (a reader of a
// link, a watcher of a process, a timer) must never wait for the driver, and
// what they post is bounded by what happens to a few processes.
type mailbox struct {
	mu    sync.Mutex
	items []func()
	over  bool
	wake  chan struct{} // has room for one
}

func newMailbox() *mailbox { return &mailbox{wake: make(chan struct{}, 1)} }

// post hands f to the driver. It reports false if the driver has ended.
func (m *mailbox) post(f func()) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.over {
		return false
	}
	m.items = append(m.items, f)
	select {
	case m.wake <- struct{}{}:
	default:
	}
	return true
}

// take returns what has been posted since the last call.
func (m *mailbox) take() []func() {
	m.mu.Lock()
	defer m.mu.Unlock()
	items := m.items
	m.items = nil
	return items
}

// close refuses further posts, and drops what is left.
func (m *mailbox) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.over = true
	m.items = nil
}
