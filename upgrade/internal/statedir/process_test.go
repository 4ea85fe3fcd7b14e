package statedir_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/internal/statedir"
)

// write is the main of a process that appends.
//
// "forever FIRST SIZE": entries from number FIRST, each printed when it is on
// the disk; "round MAX": N entries of SIZE for each line "N SIZE" on stdin, in a
// history with files of MAX bytes.
func write(kind string) error {
	args := strings.Fields(kind)
	d, err := statedir.Open(os.Getenv(dirEnv))
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	if args[0] == "forever" {
		size, err := strconv.Atoi(args[2])
		for ; err == nil; n++ {
			if err = d.Append(entry{"forever", n, text(size)}); err == nil {
				fmt.Println(n)
			}
		}
		return err
	}
	d.SetMaxHistory(int64(n))
	d.SetPatience(time.Minute) // the machine may be a busy one
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var count, size int
		if _, err := fmt.Sscan(in.Text(), &count, &size); err != nil {
			return err
		}
		for i := range count {
			if err := d.Append(entry{args[2], i, text(size)}); err != nil {
				return err
			}
		}
		fmt.Println("done")
	}
	return nil
}

// writer is such a process.
type writer struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startWriter(t *testing.T, dir, kind string) *writer {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), writerEnv+"="+kind, dirEnv+"="+dir, "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	return &writer{cmd, in, bufio.NewReader(out)}
}

// line returns the next line that it prints.
func (w *writer) line(t *testing.T) string {
	t.Helper()
	line, err := w.out.ReadString('\n')
	require.NoError(t, err)
	return strings.TrimSpace(line)
}

// memoryDir returns a directory where fdatasync(2) takes no time: so processes
// are more often where a test wants to meet them.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "statedir")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { assert.NoError(t, os.RemoveAll(dir)) })
	return dir
}

// TestCrash kills a process that appends, again and again. What it was told is
// on the disk must be there, whatever happened to the last line.
func TestCrash(t *testing.T) {
	leak.Check(t)
	dir := memoryDir(t)
	d := open(t, dir)
	next, torn := 1, 0
	for round := range 40 {
		// Lines of many pages: a SIGKILL ends a write(2) between two of them.
		w := startWriter(t, dir, fmt.Sprintf("forever %d %d", next, 60_000))
		for range 1 + rand.IntN(4) {
			n, err := strconv.Atoi(w.line(t))
			require.NoError(t, err)
			require.Equal(t, next, n)
			next++
		}
		require.NoError(t, w.cmd.Process.Kill())
		rest, _ := io.ReadAll(w.out) // confirmed meanwhile
		next += strings.Count(string(rest), "\n")
		require.Error(t, w.cmd.Wait())
		if all := content(t, history(d)); !strings.HasSuffix(all, "\n") {
			torn++
		}
		// One more may be there, which it was killed before it could print.
		got := numbers(t, d, 5)
		if got[0] == next {
			next++
		}
		require.Equal(t, down(next-1, max(1, next-5)), got, "round %d", round)
	}
	all := numbers(t, d, 0)
	assert.Equal(t, down(next-1, next-len(all)), all)
	assert.GreaterOrEqual(t, len(all), 17, "a whole file of them, if not two")
	t.Logf("%d lines, %d of 40 crashes tore one", next-1, torn)
}

// TestTwoProcesses has two generations append while the file becomes full. It
// does so exactly once in a round, so that no line may be missing after it.
func TestTwoProcesses(t *testing.T) {
	leak.Check(t)
	const (
		size  = 300  // of the text of a line, which has some 30 more
		lines = 4    // of each of the two
		full  = 1800 // of the eight, five
	)
	dir := memoryDir(t)
	d := open(t, dir)
	var writers []*writer
	for i := range 2 {
		writers = append(writers, startWriter(t, dir, fmt.Sprintf("round %d %c", full, 'a'+i)))
	}
	for round := range 1000 {
		for _, w := range writers {
			_, err := fmt.Fprintln(w.in, lines, size)
			require.NoError(t, err)
		}
		for _, w := range writers {
			require.Equal(t, "done", w.line(t))
		}
		records, err := d.Records(0)
		require.NoError(t, err)
		seen := map[string][]int{}
		for _, r := range records {
			var e entry
			require.NoError(t, json.Unmarshal(r, &e))
			require.Len(t, e.Text, size)
			seen[e.Writer] = append(seen[e.Writer], e.N)
		}
		require.Equal(t, map[string][]int{"a": down(lines-1, 0), "b": down(lines-1, 0)}, seen, "round %d", round)
		all := content(t, previous(d)) + content(t, history(d))
		require.Equal(t, 2*lines, strings.Count(all, "\n"), "and nothing else is in the files")
		require.LessOrEqual(t, len(content(t, previous(d))), full)
		require.NoError(t, os.Remove(history(d)))
		require.NoError(t, os.Remove(previous(d)))
	}
	for _, w := range writers {
		require.NoError(t, w.in.Close())
		require.NoError(t, w.cmd.Wait())
	}
}

// TestReadWhileWritten: a reader takes no lock, and sees whole lines, each once
// and in order.
func TestReadWhileWritten(t *testing.T) {
	leak.Check(t)
	dir := t.TempDir()
	d := open(t, dir)
	w := startWriter(t, dir, "round 20000 a")
	_, err := fmt.Fprintln(w.in, 1000, 500)
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		assert.Equal(t, "done", w.line(t))
	}()
	last, reads := -1, 0
	for running := true; running; reads++ {
		select {
		case <-done:
			running = false
		default:
		}
		got := numbers(t, d, 10)
		if len(got) == 0 {
			continue
		}
		require.GreaterOrEqual(t, got[0], last)
		last = got[0]
		require.Equal(t, down(last, last-len(got)+1), got)
	}
	assert.Equal(t, 999, last)
	t.Logf("%d reads", reads)
	require.NoError(t, w.in.Close())
	require.NoError(t, w.cmd.Wait())
}
