package load

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"
)

// request is one request, and how its answer is checked.
type request struct {
	method string
	head   []byte
	body   []byte
	asked  time.Duration // that the server shall sleep
	check  func(from origin, r *http.Response) error
}

// flight is what a client writes before it reads an answer: one request, or
// several (HTTP pipelining, RFC 9112 section 9.3.2).
type flight struct {
	requests []request
	cuts     []cut // in ascending order; none: all is written at once
}

// cut is where a client stops writing for a moment.
type cut struct {
	at    int           // offset in what the flight writes
	pause time.Duration // 0: only a write(2) of its own
}

// bytes is what is written, and where each request ends in it.
func (f *flight) bytes() (out []byte, ends []int) {
	for _, r := range f.requests {
		out = append(append(out, r.head...), r.body...)
		ends = append(ends, len(out))
	}
	return out, ends
}

// extra is how long it takes by its own doing.
func (f *flight) extra() time.Duration {
	var d time.Duration
	for _, r := range f.requests {
		d += r.asked
	}
	for _, c := range f.cuts {
		d += c.pause
	}
	return d
}

// cutAt cuts a flight at the given places, each time with a random pause of at
// most longest.
func (f *flight) cutAt(rng *rand.Rand, longest time.Duration, at ...int) {
	slices.Sort(at)
	for _, at := range slices.Compact(at) {
		f.cuts = append(f.cuts, cut{at, time.Duration(rng.Int64N(int64(longest) + 1))})
	}
}

// maker makes the flights of one kind.
type maker func(rng *rand.Rand) flight

// hello is GET /.
func (o *Options) hello() maker {
	r := o.get()
	return func(*rand.Rand) flight { return flight{requests: []request{r}} }
}

// post is POST / with a body of up to 4 KiB; one in eight is written in two parts.
func (o *Options) post() maker {
	return func(rng *rand.Rand) flight {
		r := o.upload(body(rng, 1+rng.IntN(4096)))
		f := flight{requests: []request{r}}
		if rng.IntN(8) == 0 {
			f.cutAt(rng, 5*time.Millisecond, (len(r.head)+len(r.body))/2)
		}
		return f
	}
}

// small is POST / with a body of up to 512 bytes, for clients that are many.
func (o *Options) small() maker {
	return func(rng *rand.Rand) flight {
		return flight{requests: []request{o.upload(body(rng, 1+rng.IntN(512)))}}
	}
}

// torn is POST / in two to four pieces. The cuts prefer the places where a server
// has nothing, or nearly all, of a header: within its first line, within the
// empty line that ends it, before and within the body.
func (o *Options) torn() maker {
	return func(rng *rand.Rand) flight {
		r := o.upload(body(rng, 2+rng.IntN(255)))
		f := flight{requests: []request{r}}
		line, head, all := bytes.Index(r.head, []byte("\r\n")), len(r.head), len(r.head)+len(r.body)
		var at []int
		for range 1 + rng.IntN(3) {
			switch rng.IntN(4) {
			case 0:
				at = append(at, 1+rng.IntN(line))
			case 1:
				at = append(at, head-3+rng.IntN(4))
			case 2:
				at = append(at, head+1+rng.IntN(len(r.body)-1))
			case 3:
				at = append(at, 1+rng.IntN(all-1))
			}
		}
		f.cutAt(rng, 20*time.Millisecond, at...)
		return f
	}
}

// byteByByte is the shortest POST / that there is, a byte at a time.
func (o *Options) byteByByte() maker {
	return func(rng *rand.Rand) flight {
		r := o.upload(body(rng, 8))
		r.head = fmt.Appendf(nil, "POST / HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n", o.Host, len(r.body))
		f := flight{requests: []request{r}}
		var at []int
		for i := 1; i < len(r.head)+len(r.body); i++ {
			at = append(at, i)
		}
		f.cutAt(rng, 2*time.Millisecond, at...)
		return f
	}
}

// pipelined is two to five requests, GET / and POST /. Half of the flights are
// written at once, the others in pieces that know nothing of where a request ends
// (or that end with one: then the server believes that this was all).
func (o *Options) pipelined() maker {
	get := o.get()
	return func(rng *rand.Rand) flight {
		var f flight
		for range 2 + rng.IntN(4) {
			if rng.IntN(3) == 0 {
				f.requests = append(f.requests, get)
				continue
			}
			// Mostly small; together sometimes more than a server reads at once. Bodies
			// of 16 bytes or more tell the answers, and so their order, apart.
			f.requests = append(f.requests, o.upload(body(rng, 16+rng.IntN(1+rng.IntN(2048)))))
		}
		if rng.IntN(2) == 0 {
			return f
		}
		out, ends := f.bytes()
		var at []int
		for range 1 + rng.IntN(3) {
			if rng.IntN(2) == 0 {
				at = append(at, 1+rng.IntN(len(out)-1))
			} else {
				at = append(at, ends[rng.IntN(len(ends)-1)])
			}
		}
		f.cutAt(rng, 10*time.Millisecond, at...)
		return f
	}
}

// sleep is GET /sleep.
func (o *Options) sleep() maker {
	return func(rng *rand.Rand) flight {
		d := time.Duration(rng.Int64N(int64(o.SlowTime)) + 1).Round(time.Millisecond)
		return flight{requests: []request{{
			method: http.MethodGet,
			head:   o.head(fmt.Sprintf("GET /sleep?ms=%d HTTP/1.1", d.Milliseconds()), ""),
			asked:  d,
			check:  checkSleep,
		}}}
	}
}

// bytes is GET /bytes.
func (o *Options) bytes() maker {
	r := request{
		method: http.MethodGet,
		head:   o.head(fmt.Sprintf("GET /bytes?n=%d HTTP/1.1", o.DownloadSize), ""),
		check:  checkBytes(o.DownloadSize),
	}
	return func(*rand.Rand) flight { return flight{requests: []request{r}} }
}

func (o *Options) get() request {
	return request{method: http.MethodGet, head: o.head("GET / HTTP/1.1", ""), check: checkHello}
}

// lone is GET / on a connection that ends with its answer.
func (o *Options) lone() request {
	return request{method: http.MethodGet, head: o.head("GET / HTTP/1.1", "Connection: close\r\n"), check: checkHello}
}

func (o *Options) upload(body []byte) request {
	return request{
		method: http.MethodPost,
		head:   o.head("POST / HTTP/1.1", fmt.Sprintf("Content-Type: text/plain\r\nContent-Length: %d\r\n", len(body))),
		body:   body,
		check:  checkPost(body),
	}
}

func (o *Options) head(line, fields string) []byte {
	return []byte(line + "\r\nHost: " + o.Host + "\r\nUser-Agent: handoff-load\r\n" + fields + "\r\n")
}

// body is n random letters.
func body(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := 0; i < n; {
		// One number makes eight letters: with a number for each, making bodies would
		// be much of what the client does.
		for x, j := rng.Uint64(), 0; j < 8 && i < n; x, i, j = x>>8, i+1, j+1 {
			b[i] = 'a' + byte(x&15)
		}
	}
	return b
}
