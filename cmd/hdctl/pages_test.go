package main

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/control"
)

const manDir = "../../packaging/man"

// page is a manual page in Markdown.
func page(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(manDir, name+".md"))
	require.NoError(t, err)
	return string(data)
}

// sources calls on for each source file of the project below dirs that is no test.
func sources(t *testing.T, on func(path, text string), dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		err := filepath.WalkDir(filepath.Join("../..", dir), func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && (d.Name() == "testdata" || path == manDir):
				return fs.SkipDir
			case d.IsDir(), strings.HasSuffix(path, "_test.go"), strings.HasSuffix(path, ".md"):
				return nil
			}
			text, err := os.ReadFile(path)
			on(path, string(text))
			return err
		})
		require.NoError(t, err)
	}
}

// Every page has what a page has, and refers to pages that there are.
func TestPages(t *testing.T) {
	pages, err := filepath.Glob(filepath.Join(manDir, "*.md"))
	require.NoError(t, err)
	var names []string
	for _, p := range pages {
		names = append(names, strings.TrimSuffix(filepath.Base(p), ".md"))
	}
	assert.Equal(t, []string{"handoff-control.5", "handoff.7", "hdctl.1"}, names)
	reference := regexp.MustCompile(`\*\*([\w.-]+)\*\*\((\d)\)`)
	for _, name := range names {
		text := page(t, name)
		stem, section, _ := strings.Cut(name, ".")
		assert.Regexp(t, `^`+stem+` `+section+` "" handoff "[A-Z][A-Za-z ]+"\n=+\n\n# NAME\n\n`+stem+` - [^\n]+\n`, text)
		for _, heading := range []string{"DESCRIPTION", "FILES", "SEE ALSO"} {
			assert.Contains(t, text, "\n# "+heading+"\n", name)
		}
		_, seeAlso, _ := strings.Cut(text, "\n# SEE ALSO\n")
		for _, ref := range reference.FindAllStringSubmatch(text, -1) {
			if other := ref[1] + "." + ref[2]; strings.HasPrefix(ref[1], "handoff") || ref[1] == "hdctl" {
				assert.Contains(t, names, other, "%s refers to it", name)
			}
		}
		for _, other := range names {
			if other != name {
				stem, section, _ := strings.Cut(other, ".")
				assert.Contains(t, seeAlso, "**"+stem+"**("+section+")", "SEE ALSO of %s", name)
			}
		}
		for i, line := range strings.Split(text, "\n") {
			assert.NotContains(t, line, "\t", "%s:%d", name, i+1)
			assert.Equal(t, strings.TrimRight(line, " "), line, "%s:%d: blanks at the end", name, i+1)
		}
	}
	// The units say where to read on.
	documented := regexp.MustCompile(`man:([\w-]+)\((\d)\)`)
	sources(t, func(path, text string) {
		for _, ref := range documented.FindAllStringSubmatch(text, -1) {
			if !strings.HasPrefix(ref[1], "systemd") {
				assert.Contains(t, names, ref[1]+"."+ref[2], path)
			}
		}
	}, "units")
}

// Every variable of ours that the source knows is in handoff(7), or as one of hdctl in
// hdctl(1), and no other.
func TestEnvironmentPage(t *testing.T) {
	variable := regexp.MustCompile(`\b(HANDOFF|HDCTL)_[A-Z_]*[A-Z]\b`)
	known := make(map[string]string) // and where
	sources(t, func(path, text string) {
		for line := range strings.Lines(text) {
			if strings.HasPrefix(strings.TrimSpace(line), "Bad:") {
				continue // what a rule warns of
			}
			for _, name := range variable.FindAllString(line, -1) {
				known[name] = path
			}
		}
	}, "activation", "cmd", "packaging", "units", "upgrade")
	require.Contains(t, known, "HANDOFF_READY_TIMEOUT")
	text := page(t, "handoff.7")
	for name, path := range known {
		if strings.HasPrefix(name, "HDCTL") {
			assert.Contains(t, page(t, "hdctl.1"), "\n*"+name+"*\n: ", path)
		}
		assert.Regexp(t, `\b`+name+`\b`, text, path)
	}
	for _, name := range variable.FindAllString(text+page(t, "hdctl.1")+page(t, "handoff-control.5"), -1) {
		assert.Contains(t, known, name)
	}
	// The ids of the records in the journal.
	sources(t, func(path, text string) {
		for _, id := range regexp.MustCompile(`"[0-9a-f]{32}"`).FindAllString(text, -1) {
			assert.Contains(t, page(t, "handoff.7"), "MESSAGE_ID="+strings.Trim(id, `"`), path)
		}
	}, "upgrade")
}

// controlPackage is the source of package control.
func controlPackage(t *testing.T) []*ast.File {
	t.Helper()
	paths, err := filepath.Glob("../../upgrade/control/*.go")
	require.NoError(t, err)
	var files []*ast.File
	for _, path := range paths {
		if !strings.HasSuffix(path, "_test.go") {
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			require.NoError(t, err)
			files = append(files, f)
		}
	}
	return files
}

// Everything that is said on the control socket is in handoff-control(5): what can be
// asked for, every field, and every value that a field can have.
func TestControlPage(t *testing.T) {
	text := page(t, "handoff-control.5")
	// What a word of the API is printed as: in *italics* or **bold**, or in the
	// first column of a table.
	terms := make(map[string]bool)
	for _, m := range regexp.MustCompile(`\*{1,2}([\w-]+)\*{1,2}`).FindAllStringSubmatch(text, -1) {
		terms[m[1]] = true
	}
	for _, m := range regexp.MustCompile(`(?m)^\| ([\w, -]+) \|`).FindAllStringSubmatch(text, -1) {
		for term := range strings.SplitSeq(m[1], ", ") {
			terms[term] = true
		}
	}
	fields, values := 0, 0
	for _, f := range controlPackage(t) {
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.Field:
				if n.Tag == nil {
					return true
				}
				tag, err := strconv.Unquote(n.Tag.Value)
				require.NoError(t, err)
				if name, _, _ := strings.Cut(reflect.StructTag(tag).Get("json"), ","); name != "" {
					fields++
					assert.True(t, terms[name], "field %s", name)
				}
			case *ast.ValueSpec:
				for i, name := range n.Names {
					if !regexp.MustCompile(`^(Code|Outcome|Phase|State|Conn|Disk|Via|Wait|Check|Verdict|Header)[A-Z]`).MatchString(name.Name) {
						continue
					}
					value, err := strconv.Unquote(n.Values[i].(*ast.BasicLit).Value)
					require.NoError(t, err)
					values++
					if strings.HasPrefix(name.Name, "Code") || strings.HasPrefix(name.Name, "Outcome") || strings.HasPrefix(name.Name, "Header") {
						assert.True(t, terms[value], "%s: %s", name.Name, value)
					}
					assert.Regexp(t, `(^|[^\w-])`+value+`($|[^\w-])`, text, name.Name)
				}
			}
			return true
		})
	}
	assert.Greater(t, fields, 150)
	assert.Greater(t, values, 80)

	handler, err := os.ReadFile("../../upgrade/internal/controld/handler.go")
	require.NoError(t, err)
	var routes []string
	for _, m := range regexp.MustCompile(`http\.Method(\w+), "(/v1/\w+)"`).FindAllStringSubmatch(string(handler), -1) {
		routes = append(routes, strings.ToUpper(m[1])+" "+m[2])
	}
	var described []string
	for _, m := range regexp.MustCompile(`(?m)^## ((?:GET|POST) .*)$`).FindAllStringSubmatch(text, -1) {
		described = append(described, m[1])
	}
	assert.Len(t, routes, 12)
	assert.ElementsMatch(t, routes, described)
}

// The HTTP status of each code is the one in the comment of package controld, which has
// a test of its own.
func TestControlPageStatus(t *testing.T) {
	doc, err := os.ReadFile("../../upgrade/internal/controld/doc.go")
	require.NoError(t, err)
	want := make(map[string]string)
	status := ""
	for _, m := range regexp.MustCompile(`(?m)^//\t(\d{3})? +([a-z0-9_, ]+)$`).FindAllStringSubmatch(string(doc), -1) {
		if m[1] != "" {
			status = m[1]
		}
		for code := range strings.SplitSeq(strings.Trim(m[2], ", "), ", ") {
			want[code] = status
		}
	}
	require.Equal(t, "412", want["check_failed"])
	rows := regexp.MustCompile(`(?m)^\| (\w+) \| (\d{3}) \|`).FindAllStringSubmatch(page(t, "handoff-control.5"), -1)
	assert.Greater(t, len(rows), 25)
	for _, row := range rows {
		code, got := row[1], row[2]
		if want[code] == "" {
			want[code] = want["all others"]
		}
		assert.Equal(t, want[code], got, code)
	}
}

// The examples of handoff-control(5) are good commands: they are run, in their order,
// on a service.
func TestControlPageExamples(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"curl", "go"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed", program)
		}
	}
	dir, err := os.MkdirTemp("", "hd")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	demo := filepath.Join(dir, "demo")
	out, err := exec.Command("go", "build", "-o", demo, "github.com/hdctl/handoff/cmd/handoff-demo").CombinedOutput()
	require.NoError(t, err, "%s", out)
	socket := filepath.Join(dir, "c.sock")
	startDemo(t, demo, socket)

	// What a stream or an answer must have in it, by what was asked for.
	want := map[string]string{
		"/v1/status":          `"api_version":1`,
		"/v1/events?follow=1": `"phase":"serving"`,
		"/v1/conns":           `{"end":{"total":0}}`,
		"CVE-2026-1":          `"outcome":"confirmed"`,
		"stage_pct":           `"outcome":"staged"`,
		"/v1/promote":         `"outcome":"confirmed"`,
		"/v1/pause":           `"reason":"freeze"`,
	}
	seen := make(map[string]bool)
	for _, m := range regexp.MustCompile(`(?m)^    (S=|curl )(.+)$`).FindAllStringSubmatch(page(t, "handoff-control.5"), -1) {
		line := strings.ReplaceAll(m[1]+m[2], "/run/handoff/app/control.sock", socket)
		if m[1] == "S=" || strings.Contains(line, "NAME") {
			continue
		}
		command := "S=" + socket + "; " + line
		endless := strings.Contains(line, "follow")
		if endless {
			command = strings.Replace(command, "curl", "curl --max-time 0.5", 1)
		}
		out, err := exec.Command("sh", "-c", strings.Replace(command, "curl", "curl --silent --max-time 30", 1)).Output()
		if !endless {
			require.NoError(t, err, "%s\n%s", line, out)
		}
		assert.NotContains(t, string(out), `"error"`, line)
		for part, text := range want {
			if strings.Contains(line, part) {
				seen[part] = true
				assert.Contains(t, string(out), text, line)
			}
		}
	}
	assert.Len(t, seen, len(want))
}

// startDemo starts the example service, and ends all that is left of it with the
// test.
func startDemo(t *testing.T, demo, socket string) {
	t.Helper()
	client := &control.Client{Socket: socket}
	cmd := exec.Command(demo, "--http", "127.0.0.1:0")
	cmd.Env = append(os.Environ(), "HANDOFF_CONTROL="+socket, "HANDOFF_PROBATION=50ms", "HANDOFF_STOP_TIMEOUT=1s")
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		if s, err := client.Status(context.Background()); err == nil {
			for _, g := range s.Generations {
				_ = syscall.Kill(g.PID, syscall.SIGTERM)
			}
		}
		_ = cmd.Wait()
	})
	require.Eventually(t, func() bool {
		s, err := client.Status(t.Context())
		return err == nil && s.State == control.StateServing
	}, 30*time.Second, 10*time.Millisecond)
}
