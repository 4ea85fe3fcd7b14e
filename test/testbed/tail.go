package testbed

import "sync"

// tailLimit is how many bytes a [tail] keeps.
const tailLimit = 64 << 10

// tail is an [io.Writer] that remembers the end of what was written to it.
type tail struct {
	mu   sync.Mutex
	text []byte // guarded by mu
	cut  bool   // guarded by mu: text is not all
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if more := len(t.text) - tailLimit; more > 0 {
		t.text = append(t.text[:0], t.text[more:]...)
		t.cut = true
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cut {
		return "[…]" + string(t.text)
	}
	return string(t.text)
}
