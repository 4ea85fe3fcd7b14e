package e2e

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"
)

// fleet is many clients, each with one connection that it keeps.
type fleet []*member

// member is one client. Its requests are like no others, so that an answer that
// belongs to another one is noticed, and so is a request that was answered twice.
type member struct {
	net.Conn
	br     *bufio.Reader
	number int
	asked  int
	left   bool // it was told that the connection ends
}

// reply is the answer to one request.
type reply struct {
	generation int // of who answered
	announced  bool
	wait       time.Duration
	err        error
}

// openFleet opens n connections. Some of them, fresh, have not carried a byte; the
// others one request.
func (s *site) openFleet(n, fresh int) fleet {
	s.t.Helper()
	f := make(fleet, n)
	var failed atomic.Pointer[error]
	inParallel(n, 32, func(i int) {
		c, err := s.Dial(context.Background(), "tcp", address)
		if err != nil {
			failed.Store(&err)
			return
		}
		f[i] = &member{Conn: c, br: bufio.NewReaderSize(c, 1024), number: i}
	})
	s.t.Cleanup(func() {
		for _, m := range f {
			if m != nil {
				m.Close()
			}
		}
	})
	if err := failed.Load(); err != nil {
		s.t.Fatal(*err)
	}
	require.NoError(s.t, f[fresh:].ask().err())
	return f
}

// inParallel calls do for each number below n, some of them at the same time.
func inParallel(n, workers int, do func(i int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(n, workers) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				do(int(i))
			}
		})
	}
	wg.Wait()
}

// askLimit is how long a client waits for its answer. It is no promise: only what
// would hang for ever reaches it.
const askLimit = time.Minute

// ask sends a POST, and checks the answer to the last byte.
func (m *member) ask() (r reply) {
	m.asked++
	body := fmt.Sprintf("request %d of client %d", m.asked, m.number)
	began := time.Now()
	if r.err = m.SetDeadline(began.Add(askLimit)); r.err != nil {
		return r
	}
	if _, r.err = fmt.Fprintf(m, "POST / HTTP/1.1\r\nHost: demo\r\nContent-Length: %d\r\n\r\n%s", len(body), body); r.err != nil {
		return r
	}
	var resp *http.Response
	if resp, r.err = http.ReadResponse(m.br, nil); r.err != nil {
		return r
	}
	r.wait, r.announced = time.Since(began), resp.Close
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		r.err = err
		return r
	}
	var digest struct{ SHA256 string }
	sum := sha256.Sum256([]byte(body))
	if err := json.Unmarshal(text, &digest); err != nil || digest.SHA256 != hex.EncodeToString(sum[:]) {
		r.err = fmt.Errorf("the answer to %q is that to another request, or none: %d %q", body, resp.StatusCode, text)
		return r
	}
	m.left = resp.Close
	r.generation, r.err = strconv.Atoi(resp.Header.Get("X-Handoff-Generation"))
	return r
}

// census is what a fleet was answered.
type census struct {
	mu        sync.Mutex
	by        map[int]int // answers, by generation
	announced int         // of these, with "Connection: close"
	failed    int
	first     error
	longest   time.Duration
}

func newCensus() *census { return &census{by: make(map[int]int)} }

func (c *census) add(r reply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.err != nil {
		if c.failed++; c.first == nil {
			c.first = r.err
		}
		return
	}
	c.by[r.generation]++
	if r.announced {
		c.announced++
	}
	c.longest = max(c.longest, r.wait)
}

// answers counts them so far.
func (c *census) answers() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, k := range c.by {
		n += k
	}
	return n
}

// err is nil if every request was answered.
func (c *census) err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed == 0 {
		return nil
	}
	return fmt.Errorf("%d requests failed, the first: %w", c.failed, c.first)
}

func (c *census) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprintf("answers by generation %v, %d of them announced the end, %d requests failed (%v), longest wait %v",
		c.by, c.announced, c.failed, c.first, c.longest.Round(100*time.Microsecond))
}

// ask has each client send one request, some hundred of them at the same time.
func (f fleet) ask() *census {
	c := newCensus()
	inParallel(len(f), 256, func(i int) { c.add(f[i].ask()) })
	return c
}

// askAll has all clients send one request at the same moment, and returns what is
// answered as it comes; done is closed after the last one.
func (f fleet) askAll() (c *census, done <-chan struct{}) {
	c = newCensus()
	ch := make(chan struct{})
	go func() {
		defer close(ch)
		inParallel(len(f), len(f), func(i int) { c.add(f[i].ask()) })
	}()
	return c, ch
}

// askAtRandom has clients send requests at random moments until stop is called,
// which returns what they were answered.
func (f fleet) askAtRandom(rate float64) (stop func() *census) {
	const workers = 16
	c := newCensus()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for w := range workers {
		share := f[w*len(f)/workers : (w+1)*len(f)/workers]
		wg.Go(func() {
			for {
				pause := time.Duration(rand.ExpFloat64() * workers / rate * float64(time.Second))
				select {
				case <-time.After(pause):
					c.add(share[rand.IntN(len(share))].ask())
				case <-ctx.Done():
					return
				}
			}
		})
	}
	return func() *census {
		cancel()
		wg.Wait()
		return c
	}
}
