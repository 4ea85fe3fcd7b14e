package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hdctl/handoff/test/testbed"
)

// testbedPackage is what tests import that boot a systemd.
const testbedPackage = "github.com/hdctl/handoff/test/testbed"

// testedPackages returns the packages whose tests do, in the order of their names.
func testedPackages(ctx context.Context) ([]string, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-f",
		`{{.ImportPath}}{{range .TestImports}} {{.}}{{end}}{{range .XTestImports}} {{.}}{{end}}`, "github.com/hdctl/handoff/...")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("find the packages to test: %w", err)
	}
	found := usersOf(testbedPackage, string(out))
	if len(found) == 0 {
		return nil, fmt.Errorf("find the packages to test: none uses %s", testbedPackage)
	}
	return found, nil
}

// usersOf reads lines of a package and what its tests import.
func usersOf(imported, list string) []string {
	var users []string
	for line := range strings.Lines(list) {
		if fields := strings.Fields(line); slices.Contains(fields[min(1, len(fields)):], imported) {
			users = append(users, fields[0])
		}
	}
	return users
}

// result is what has come of the tests under one version.
type result struct {
	host
	tally
	flaky []string
	took  time.Duration
}

// test runs all tests under one version.
func (m matrix) test(ctx context.Context, h host, packages []string) (result, error) {
	r := result{host: h}
	log, err := os.Create(filepath.Join(m.cache, h.suite+".log"))
	if err != nil {
		return r, err
	}
	defer func() { _ = log.Close() }()
	began := time.Now()
	args := []string{"-p", "1"} // one package after the other, as in make test
	if m.run != "" {
		args = append(args, "-run", m.run)
	}
	if r.tally, err = m.goTest(ctx, h, log, append(args, packages...)...); err != nil {
		return r, err
	}
	var failed []string
	for _, t := range r.failed {
		pkg, name, _ := strings.Cut(t, " ")
		if name == "" { // what is wrong is not in one of its tests
			failed = append(failed, t)
			continue
		}
		say("%s: %s once more", h.suite, t)
		again, err := m.goTest(ctx, h, log, "-run", "^"+regexp.QuoteMeta(name)+"$", pkg)
		switch {
		case err != nil:
			return r, err
		case len(again.failed) == 0 && len(again.passed) > 0:
			r.flaky = append(r.flaky, t)
		default:
			failed = append(failed, t)
		}
	}
	r.failed, r.took = failed, time.Since(began)
	return r, nil
}

// goTest runs tests under one version. The error is that of running them: failed ones
// are in the tally.
func (m matrix) goTest(ctx context.Context, h host, log io.Writer, args ...string) (tally, error) {
	flags := []string{"test", "-json", "-count=1", "-timeout", m.timeout.String()}
	if m.race {
		flags = append(flags, "-race")
	}
	cmd := exec.CommandContext(ctx, "go", append(flags, args...)...)
	cmd.Env = append(os.Environ(), testbed.RootfsEnv+"="+h.rootfs, testbed.RequireEnv+"=1", "GORACE=atexit_sleep_ms=0")
	stdout, write, err := os.Pipe()
	if err != nil {
		return tally{}, err
	}
	cmd.Stdout, cmd.Stderr = write, write
	counted := make(chan tally)
	go func() {
		counted <- count(stdout, log, func(line string) { say("%s: %s", h.suite, line) })
	}()
	err = runGroup(cmd)
	_ = write.Close()
	t := <-counted
	_ = stdout.Close()
	switch {
	case ctx.Err() != nil:
		return t, fmt.Errorf("test %s: %w", h.suite, context.Cause(ctx))
	case err != nil && len(t.failed) == 0:
		return t, fmt.Errorf("test %s: %w, but no test has failed", h.suite, err)
	}
	return t, nil
}

// tally are tests by how they have ended, each as "PACKAGE TEST"; those within a test
// are part of it. A package without a test is one that has failed by itself: it does
// not compile, or leaks.
type tally struct {
	passed, failed, skipped []string
}

// event is a line of go test -json, see go doc test2json.
type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

// count reads what go test -json prints to its end. All output goes to log, and each
// test that ends, with its output if it has failed, to say.
func count(r io.Reader, log io.Writer, say func(line string)) tally {
	var t tally
	output := make(map[string]*tail) // of the tests that run
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			t.add(parseEvent(line), output, log, say)
		}
		if err != nil {
			break
		}
	}
	for name := range output { // a test that the end of the process has cut short
		if strings.Contains(name, " ") {
			t.failed = append(t.failed, name)
		}
	}
	slices.Sort(t.failed)
	return t
}

// parseEvent reads a line; what is no event is output.
func parseEvent(line []byte) event {
	var e event
	if !bytes.HasPrefix(line, []byte("{")) || json.Unmarshal(line, &e) != nil {
		return event{Action: "output", Output: string(line)}
	}
	return e
}

func (t *tally) add(e event, output map[string]*tail, log io.Writer, say func(string)) {
	_, _ = io.WriteString(log, e.Output)
	test, _, within := strings.Cut(e.Test, "/")
	name := strings.TrimSpace(e.Package + " " + test)
	if output[name] == nil && name != "" {
		output[name] = new(tail)
	}
	var list *[]string
	switch e.Action {
	case "pass":
		list = &t.passed
	case "skip":
		list = &t.skipped
	case "fail":
		list = &t.failed
	default:
		if name != "" {
			output[name].add(e.Output)
		} else if e.Output != "" { // it does not compile
			say(strings.TrimRight(e.Output, "\n"))
		}
		return
	}
	if within {
		return
	}
	text := output[name].String()
	delete(output, name)
	if test == "" {
		if e.Action == "fail" && !slices.ContainsFunc(t.failed, func(f string) bool { return strings.HasPrefix(f, name+" ") }) && !running(output, name) {
			*list = append(*list, name)
			say(text)
		}
		return
	}
	*list = append(*list, name)
	say(fmt.Sprintf("%-4s %s (%.1fs)", strings.ToUpper(e.Action), name, e.Elapsed))
	if e.Action == "fail" {
		say(text)
	}
}

// running tells whether a test of a package has begun and not ended.
func running(output map[string]*tail, pkg string) bool {
	for name := range output {
		if strings.HasPrefix(name, pkg+" ") {
			return true
		}
	}
	return false
}

// tail keeps the last lines.
type tail struct{ lines []string }

const tailLines = 200

func (t *tail) add(text string) {
	t.lines = append(t.lines, text)
	if len(t.lines) > 2*tailLines {
		t.lines = slices.Delete(t.lines, 0, len(t.lines)-tailLines)
	}
}

// String returns them.
func (t *tail) String() string {
	return strings.TrimRight(strings.Join(t.lines[max(0, len(t.lines)-tailLines):], ""), "\n")
}
