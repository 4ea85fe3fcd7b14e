package load

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// checkHeader is common to all answers but streams.
func checkHeader(r *http.Response) error {
	switch {
	case r.StatusCode != http.StatusOK:
		text, _ := io.ReadAll(io.LimitReader(r.Body, 200))
		return fmt.Errorf("status %s: %q", r.Status, text)
	case r.ContentLength < 0:
		return fmt.Errorf("the answer has no Content-Length")
	}
	return nil
}

func readJSON(r *http.Response, v any) error {
	if err := checkHeader(r); err != nil {
		return err
	}
	text, err := io.ReadAll(io.LimitReader(r.Body, 64<<10))
	if err != nil {
		return err
	}
	if int64(len(text)) != r.ContentLength {
		return fmt.Errorf("%d bytes were read of a Content-Length of %d", len(text), r.ContentLength)
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("%w: %q", err, text)
	}
	return nil
}

// checkHello checks that header and body tell of the same process.
func checkHello(from origin, r *http.Response) error {
	var body struct {
		Generation int
		PID        int
		Version    string
	}
	if err := readJSON(r, &body); err != nil {
		return err
	}
	if got := (origin{body.Generation, body.PID, body.Version}); got != from {
		return fmt.Errorf("the body tells of %+v, the header of %+v", got, from)
	}
	return nil
}

func checkPost(sent []byte) func(origin, *http.Response) error {
	return func(_ origin, r *http.Response) error {
		var body struct {
			Length int
			SHA256 string
		}
		if err := readJSON(r, &body); err != nil {
			return err
		}
		sum := sha256.Sum256(sent)
		if want := hex.EncodeToString(sum[:]); body.Length != len(sent) || body.SHA256 != want {
			return fmt.Errorf("sent %d bytes with the SHA-256 %s, the server got %d with %s", len(sent), want, body.Length, body.SHA256)
		}
		return nil
	}
}

func checkSleep(_ origin, r *http.Response) error {
	if err := checkHeader(r); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, r.Body)
	return err
}

// checkBytes expects n bytes, of which number i is i mod 251.
func checkBytes(n int64) func(origin, *http.Response) error {
	return func(_ origin, r *http.Response) error {
		if err := checkHeader(r); err != nil {
			return err
		}
		if r.ContentLength != n {
			return fmt.Errorf("the Content-Length is %d, not %d", r.ContentLength, n)
		}
		var got int64
		buf := make([]byte, 32<<10)
		for {
			m, err := r.Body.Read(buf)
			for _, b := range buf[:m] {
				if b != byte(got%251) {
					return fmt.Errorf("byte %d is %d, not %d", got, b, got%251)
				}
				got++
			}
			switch {
			case err == io.EOF && got == n:
				return nil
			case err == io.EOF:
				return fmt.Errorf("%d bytes came instead of %d", got, n)
			case err != nil:
				return err
			}
		}
	}
}
