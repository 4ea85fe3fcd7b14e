package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

func TestParseSuites(t *testing.T) {
	suites, err := parseSuites("bookworm,sid")
	require.NoError(t, err)
	assert.Equal(t, []string{"bookworm", "sid"}, suites)
	for _, bad := range []string{"", "sid,", "../etc", "sid,sid", "Sid", "252"} {
		_, err := parseSuites(bad)
		require.Error(t, err, bad)
	}
}

func TestSystemdVersion(t *testing.T) {
	assert.Equal(t, "257.13-1~deb13u1", systemdVersion("systemd 257 (257.13-1~deb13u1)"))
	assert.Equal(t, "257", systemdVersion("systemd 257"))
	assert.Equal(t, "what", systemdVersion("what"))
}

func TestUsersOf(t *testing.T) {
	assert.Equal(t, []string{"a", "c"}, usersOf("bed", "a x bed y\nbed x\nc bed\n\nd\n"))
}

// installed is what dpkg says of packages, and of one that was removed.
func installed(names ...string) string {
	text := "Package: gone\nStatus: deinstall ok config-files\n\n"
	for _, name := range names {
		text += "Package: " + name + "\nStatus: install ok installed\nVersion: 1\n\n"
	}
	return text
}

func TestComplete(t *testing.T) {
	for _, tt := range []struct {
		name, status string
		want         bool
	}{
		{"all", installed(append([]string{"libc6"}, packages...)...), true},
		{"one is missing", installed(packages[1:]...), false},
		{"one was removed", installed(packages[1:]...) + "Package: " + packages[0] + "\nStatus: deinstall ok config-files\n", false},
		{"nothing", "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			dir := filepath.Join(root, "var/lib/dpkg")
			require.NoError(t, os.MkdirAll(dir, 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "status"), []byte(tt.status), 0o600))
			assert.Equal(t, tt.want, complete(root))
		})
	}
	assert.False(t, complete(t.TempDir()))
}

// TestBootstrap has a program in the place of debootstrap that makes what the test says.
func TestBootstrap(t *testing.T) {
	leak.Check(t)
	program := func(t *testing.T, end string) string {
		t.Helper()
		path := filepath.Join(t.TempDir(), "debootstrap")
		// Its arguments: the options, the suite, the directory, and perhaps a mirror.
		script := "#!/bin/sh\necho \"$@\"\nmkdir -p $4/var/lib/dpkg $4/usr/share/doc/x $4/var/lib/apt/lists/y\n" + end
		require.NoError(t, os.WriteFile(path, []byte(script), 0o755))
		return path
	}
	good := "cat > $4/var/lib/dpkg/status <<'END'\n" + installed(packages...) + "END\n"
	content := func(t *testing.T, dir string) (names []string) {
		t.Helper()
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	dir := filepath.Join(t.TempDir(), "cache", "sid")
	log := dir + "-debootstrap.log"

	err := bootstrap(t.Context(), program(t, good+"exit 3\n"), "sid", "", dir)
	require.ErrorContains(t, err, "exit status 3")
	require.ErrorContains(t, err, log)
	assert.Equal(t, []string{"sid-debootstrap.log"}, content(t, filepath.Dir(dir)), "nothing is left of it")

	require.ErrorContains(t, bootstrap(t.Context(), program(t, "exit 0\n"), "sid", "", dir), "not all of")
	assert.Equal(t, []string{"sid-debootstrap.log"}, content(t, filepath.Dir(dir)))

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.Error(t, bootstrap(ctx, program(t, "sleep 1000\n"), "sid", "", dir))
	assert.Equal(t, []string{"sid-debootstrap.log"}, content(t, filepath.Dir(dir)))

	for range 2 { // the second one in the place of the first
		require.NoError(t, bootstrap(t.Context(), program(t, good), "sid", "http://mirror.example/debian", dir))
		assert.Equal(t, []string{"sid", "sid-debootstrap.log"}, content(t, filepath.Dir(dir)))
		assert.True(t, complete(dir))
		info, err := os.Stat(dir)
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o755), info.Mode().Perm(), "services that are not root's must get in")
	}
	assert.NoDirExists(t, filepath.Join(dir, "usr/share/doc"))
	assert.Empty(t, content(t, filepath.Join(dir, "var/lib/apt/lists")))
	args, err := os.ReadFile(log)
	require.NoError(t, err)
	assert.Contains(t, string(args), "--include="+strings.Join(packages, ","))
	assert.Contains(t, string(args), "/new http://mirror.example/debian\n")
}

// events are what go test -json prints.
func events(lines ...string) string { return strings.Join(lines, "\n") + "\n" }

func TestCount(t *testing.T) {
	for _, tt := range []struct {
		name   string
		events string
		want   tally
		said   string // some of it
	}{
		{
			"all ways to end",
			events(
				`{"Action":"start","Package":"p"}`,
				`{"Action":"run","Package":"p","Test":"TestA"}`,
				`{"Action":"run","Package":"p","Test":"TestA/sub"}`,
				`{"Action":"fail","Package":"p","Test":"TestA/sub","Elapsed":1}`,
				`{"Action":"output","Package":"p","Test":"TestA/sub","Output":"    why it failed\n"}`,
				`{"Action":"run","Package":"p","Test":"TestB"}`,
				`{"Action":"output","Package":"p","Test":"TestB","Output":"nobody wants to see\n"}`,
				`{"Action":"pass","Package":"p","Test":"TestB","Elapsed":0.04}`,
				`{"Action":"fail","Package":"p","Test":"TestA","Elapsed":1.25}`,
				`{"Action":"skip","Package":"p","Test":"TestC","Elapsed":0}`,
				`{"Action":"output","Package":"p","Output":"FAIL\tp\t1s\n"}`,
				`{"Action":"fail","Package":"p","Elapsed":1.3}`,
				`{"Action":"start","Package":"q"}`,
				`{"Action":"pass","Package":"q","Elapsed":1.3}`,
			),
			tally{passed: []string{"p TestB"}, failed: []string{"p TestA"}, skipped: []string{"p TestC"}},
			"PASS p TestB (0.0s)\nFAIL p TestA (1.2s)\n    why it failed\nSKIP p TestC (0.0s)\n",
		},
		{
			"a panic, or the time limit",
			events(
				`{"Action":"run","Package":"p","Test":"TestA"}`,
				`{"Action":"run","Package":"p","Test":"TestB"}`,
				`{"Action":"output","Package":"p","Test":"TestB","Output":"panic: test timed out\n"}`,
				`{"Action":"fail","Package":"p","Test":"TestB","Elapsed":60}`,
				`{"Action":"fail","Package":"p","Elapsed":60}`,
			),
			tally{failed: []string{"p TestA", "p TestB"}},
			"panic: test timed out",
		},
		{
			"a leak, which is nobody's",
			events(
				`{"Action":"run","Package":"p","Test":"TestA"}`,
				`{"Action":"pass","Package":"p","Test":"TestA","Elapsed":60}`,
				`{"Action":"output","Package":"p","Output":"leak: 3 descriptors\n"}`,
				`{"Action":"fail","Package":"p","Elapsed":60}`,
			),
			tally{passed: []string{"p TestA"}, failed: []string{"p"}},
			"leak: 3 descriptors",
		},
		{
			"does not compile",
			events(
				`{"ImportPath":"p","Action":"build-output","Output":"x.go:1: syntax error\n"}`,
				`{"ImportPath":"p","Action":"build-fail"}`,
				`{"Action":"output","Package":"p","Output":"FAIL\tp [build failed]\n"}`,
				`{"Action":"fail","Package":"p","Elapsed":0,"FailedBuild":"p"}`,
				"go: not JSON",
			),
			tally{failed: []string{"p"}},
			"x.go:1: syntax error\nFAIL\tp [build failed]\ngo: not JSON\n",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var log bytes.Buffer
			var said strings.Builder
			got := count(strings.NewReader(tt.events), &log, func(line string) { said.WriteString(line + "\n") })
			assert.Equal(t, tt.want, got)
			assert.Contains(t, said.String(), tt.said)
			assert.NotContains(t, said.String(), "nobody wants to see")
		})
	}
}

func TestTail(t *testing.T) {
	tl := new(tail)
	for range 3 * tailLines {
		tl.add("old\n")
	}
	for range tailLines {
		tl.add("new\n")
	}
	assert.Equal(t, strings.TrimSuffix(strings.Repeat("new\n", tailLines), "\n"), tl.String())
	assert.LessOrEqual(t, len(tl.lines), 2*tailLines)
}

func TestReport(t *testing.T) {
	tests := func(n int) []string { return make([]string, n) }
	bookworm := result{
		host:  host{suite: "bookworm", debian: "12.11", systemd: "252.38-1~deb12u1"},
		tally: tally{passed: tests(140), skipped: []string{"p TestS"}}, took: 571 * time.Second,
	}
	sid := result{
		host:  host{suite: "sid", debian: "forky/sid", systemd: "262.1-1"},
		tally: tally{passed: tests(7)}, flaky: []string{"p TestF"}, took: 90 * time.Second,
	}
	var out bytes.Buffer
	assert.True(t, report(&out, []result{bookworm, sid}), "what is flaky is no failure")
	assert.Equal(t, `
| Debian         | systemd          | tests | passed | flaky | failed | skipped | time  |
| ---            | ---              | ---   | ---    | ---   | ---    | ---     | ---   |
| bookworm 12.11 | 252.38-1~deb12u1 | 141   | 140    | 0     | 0      | 1       | 9m31s |
| sid forky/sid  | 262.1-1          | 8     | 7      | 1     | 0      | 0       | 1m30s |

bookworm: skipped: p TestS
sid: flaky: p TestF
`, out.String())

	out.Reset()
	sid.failed = []string{"p TestX"}
	assert.False(t, report(&out, []result{sid}))
	assert.Contains(t, out.String(), "sid: failed: p TestX\n")
	assert.False(t, report(&out, []result{{}}), "no test at all is no success")
}

func TestFindDebootstrapSaysWhatIsMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := findDebootstrap(t.Context())
	require.ErrorContains(t, err, "install it")
	require.Error(t, errors.Unwrap(err))
}
