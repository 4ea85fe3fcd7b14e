package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/control"
)

// completed is what c prints, line by line.
func completed(t *testing.T, a *app, grammar *kong.Node, c completeCmd) []string {
	t.Helper()
	out, stderr := new(strings.Builder), new(strings.Builder)
	before, globals := a.terminal, a.globals
	a.stdout, a.stderr = out, stderr
	c.run(t.Context(), a, grammar)
	a.terminal, a.globals = before, globals
	assert.Empty(t, stderr.String())
	return strings.FieldsFunc(out.String(), func(r rune) bool { return r == '\n' })
}

// What bash puts on the line as it is must not be executed there.
func TestCompleteNoCode(t *testing.T) {
	leak.Check(t)
	a, _, _ := testApp(t)
	s := sampleStatus()
	s.Sockets = []control.Socket{{Name: "$(reboot)"}, {Name: "a;b"}, {Name: "a b"}, {Name: "http"}}
	(&fakeService{Status: s}).run(t, a.runDir, "app")
	assert.Equal(t, []string{"http"}, completed(t, a, grammar(t), completeCmd{Shell: "bash", Words: []string{"hdctl conns app --listener "}}))
}

// grammar is that of hdctl.
func grammar(t *testing.T) *kong.Node {
	t.Helper()
	parser, err := newApp(io.Discard, io.Discard, nil).newParser(new(cli))
	require.NoError(t, err)
	return parser.Model.Node
}

func TestComplete(t *testing.T) {
	leak.Check(t)
	grammar := grammar(t)
	a, _, _ := testApp(t)
	a.env["XDG_RUNTIME_DIR"] = filepath.Join(a.runDir, "user")
	(&fakeService{Status: sampleStatus()}).run(t, a.runDir, "app")
	staged := sampleStatus()
	staged.Upgrade = &control.Progress{From: 7, To: 9}
	(&fakeService{Status: staged}).run(t, a.runDir, "web@blue")
	(&fakeService{Status: sampleStatus()}).run(t, filepath.Join(a.runDir, "user", "handoff"), "mine")
	(&fakeService{Status: sampleStatus()}).run(t, a.runDir, "odd name") // no service can be called so
	a.stateDir = filepath.Join(a.runDir, "state")
	for _, name := range []string{"app", "gone", "odd name"} {
		require.NoError(t, os.MkdirAll(filepath.Join(a.stateDir, name), 0o755))
	}
	elsewhere := filepath.Join(a.runDir, "app", control.SocketName)

	for _, tt := range []struct {
		line string // its words are apart by one space
		want string
	}{
		{"up", "upgrade"},
		{"s", "status start stop"},
		{"unit ", "generate diff verify explain"},
		{"unit ex", "explain"},
		{"abo", ""}, // an alias is for fingers that know it
		{"abort ", "app web@blue"},
		{"bogus ", ""},
		{"__", ""},
		{"status ", "app web@blue"},
		{"status w", "web@blue"},
		{"status app ", "web@blue"},
		{"upgrade app ", ""},
		{"status --user ", "mine"},
		{"--user status ", "mine"},
		{"start ", "app gone web@blue"}, // it has been there before
		{"stop ", "app web@blue"},
		{"status -q -o json ", "app web@blue"},
		{"status -qojson ", "app web@blue"},
		{"status -qo ", "table wide json jsonl"},
		{"status --bogus ", ""},
		{"status --bogus=x ", "app web@blue"},
		{"-o j", "json jsonl"},
		{"-o=j", "-o=json -o=jsonl"},
		{"--format=w", "--format=wide"},
		{"--color a", "auto always"},
		{"--quiet=t", ""},
		{"upgrade --wait ", "confirmed drained"},
		{"upgrade --wait=d", "--wait=drained"},
		{"upgrade --q", "--queue --quiet"},
		{"upgrade --queue --q", "--quiet"},
		{"upgrade -q --queue --q", ""},
		{"upgrade --stage 5% --au", ""}, // they exclude each other
		{"upgrade --stage", "--stage --stage-timeout"},
		{"upgrade --auto --step 5%:30s --step", "--step"}, // may be given again
		{"upgrade --reason --queue --q", "--queue --quiet"},
		{"upgrade -- --q", ""},
		{"upgrade -- a", "app"},
		{"conns --state ", "new active idle stream hijacked"},
		{"conns app --listener ", "http echo old"},
		{"conns app --listener=e", "--listener=echo"},
		{"conns app --generation ", "7 6 5 8"},
		{"conns --generation ", ""}, // of which service?
		{"conns --socket " + elsewhere + " --generation 7", "7"},
		{"end app --generation=", "--generation=6 --generation=5"},
		{"end gone --generation=", ""},
		{"wait app --for ", "ready drained generation="},
		{"wait app --for gen", "generation="},
		{"wait app --for=generation=", "--for=generation=7 --for=generation=8"},
		{"wait web@blue --for generation=", "generation=7 generation=9"},
		{"wait gone --for generation=", ""},
		{"--socket ", ":files"},
		{"upgrade --binary=/us", ":files"},
		{"unit generate app --output ", ":directories"},
		{"unit generate app --listen ht", ""},
		{"unit generate ", "app web@blue"},
		{"unit verify we", "web@blue"},
		{"unit verify ./app.se", ":files"},
		{"unit explain reuse-", "reuse-port"},
		{"unit verify app --ignore reuse-", "reuse-port"},
		{"unit verify app --ignore=reuse-", "--ignore=reuse-port"},
		{"metrics --textfile ", ":directories"},
		{"run -- ", ":command"},
		{"run -- ls -", ":command"},
		{"run ls -", ":command"},
		{"completion ", "bash zsh fish"},
		{"completion zsh ", ""},
		{"list ", ""},
	} {
		t.Run(tt.line, func(t *testing.T) {
			words := strings.Split(tt.line, " ")
			got := completed(t, a, grammar, completeCmd{Shell: "plain", Words: words})
			assert.Equal(t, tt.want, strings.Join(got, " "))
			// bash gives the line, and what it is going to replace.
			at := strings.LastIndexAny(tt.line, " =:@") + 1
			bash := completed(t, a, grammar, completeCmd{Shell: "bash", Replace: tt.line[at:], Words: []string{"hdctl " + tt.line}})
			for i := range bash {
				if !strings.HasPrefix(bash[i], ":") {
					bash[i] = words[len(words)-1][:len(words[len(words)-1])-len(tt.line[at:])] + bash[i]
				}
			}
			assert.Equal(t, got, bash)
		})
	}
	t.Run("none", func(t *testing.T) {
		got := completed(t, a, grammar, completeCmd{Shell: "plain"})
		assert.Contains(t, got, "upgrade")
		assert.NotContains(t, got, "__complete")
	})
	t.Run("descriptions", func(t *testing.T) {
		got := completed(t, a, grammar, completeCmd{Shell: "zsh", Words: []string{"sta"}})
		assert.Contains(t, got, "status\tShow generations and draining connections")
		assert.Contains(t, got, "upgrade\tStart a new generation and hand it the sockets; wait until it is confirmed",
			"zsh and fish choose by themselves")
		got = completed(t, a, grammar, completeCmd{Shell: "fish", Words: []string{"end", "app", "--generation", ""}})
		assert.Equal(t, []string{"6\tdraining v2.3.0", "5\tdraining v2.2.9"}, got)
	})
}

// Nobody waits for a service that does not answer.
func TestCompleteNeverHangs(t *testing.T) {
	leak.Check(t)
	a, _, _ := testApp(t)
	(&fakeService{Status: sampleStatus(), Hang: []string{"/v1/status"}}).run(t, a.runDir, "app")
	of := func(words ...string) []string {
		return completed(t, a, grammar(t), completeCmd{Shell: "plain", Words: words})
	}
	assert.Empty(t, of("end", "app", "--generation", ""))
	assert.Equal(t, []string{"app"}, of("end", ""))
	require.NoError(t, os.RemoveAll(a.runDir))
	assert.Empty(t, of("end", ""))
}

func TestLastCommand(t *testing.T) {
	for _, tt := range []struct {
		line string
		want []string
	}{
		{"hdctl", []string{}},
		{"hdctl ", []string{""}},
		{"hdctl  status   app", []string{"status", "app"}},
		{"hdctl status app ", []string{"status", "app", ""}},
		{`hdctl pause --reason 'a "b" \c' x`, []string{"pause", "--reason", `a "b" \c`, "x"}},
		{`hdctl pause --reason "a 'b' \c \"d\" \$e" x`, []string{"pause", "--reason", `a 'b' \c "d" $e`, "x"}},
		{`hdctl status a\ b\@c`, []string{"status", "a b@c"}},
		{`hdctl status 'not closed `, []string{"status", "not closed "}},
		{`hdctl status ""`, []string{"status", ""}},
		{`hdctl status a\`, []string{"status", "a"}},
		{"hdctl status --for=generation=7", []string{"status", "--for=generation=7"}},
		{"true; hdctl status a", []string{"status", "a"}},
		{"hdctl list && hdctl sta", []string{"sta"}},
		{"hdctl list | cat; hdctl 'a;b' ", []string{"a;b", ""}},
	} {
		assert.Equal(t, tt.want, lastCommand(tt.line), tt.line)
	}
}

func TestKeptOf(t *testing.T) {
	for _, tt := range []struct {
		word, replaced string
		want           string
		ok             bool
	}{
		{"", "", "", true},
		{"app", "app", "", true},
		{"--for=generation=", "", "--for=generation=", true},
		{"--for=generation=7", "7", "--for=generation=", true},
		{"--for=re", "--for=re", "", true}, // no "=" in COMP_WORDBREAKS
		{"--for=", "=", "--for=", true},
		{"web@bl", "@bl", "web", true}, // "@" begins the name of a host
		{"app", `"app`, "", true},
		{"a b", `a\ b`, "", true},
		{"app", "other", "", false},
	} {
		got, ok := keptOf(tt.word, tt.replaced)
		assert.Equal(t, tt.ok, ok, "%q %q", tt.word, tt.replaced)
		if ok {
			assert.Equal(t, tt.want, got, "%q %q", tt.word, tt.replaced)
		}
	}
}
