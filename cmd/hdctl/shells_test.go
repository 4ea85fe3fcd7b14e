package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// shell is an interactive shell on a terminal, whose keys do this:
//
//	Tab	completes
//	Ctrl-T	prints the line and empties it: <LINE>
type shell struct {
	tty *pty
}

// startShell starts a shell with commands that make it ready: they must end in
// "echo READY", written so that its echo is not taken for it.
func startShell(t *testing.T, dir string, env []string, argv ...string) *shell {
	t.Helper()
	tty := newPTY(t)
	require.NoError(t, unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 50, Col: 500}))
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	cmd.Env = append(cmd.Env, "TERM=dumb", "HOME="+dir, "ZDOTDIR="+dir, "PS1=", "HISTFILE=", "GORACE=atexit_sleep_ms=0", "INPUTRC=/dev/null", "LC_ALL=C.UTF-8")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty.File, tty.File, tty.File
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	s := &shell{tty}
	tty.readUntil(t, func(s string) bool { return strings.Contains(s, "READY") })
	return s
}

// keys types keys, and returns what was printed until the line was.
func (s *shell) keys(t *testing.T, keys string) (printed, line string) {
	t.Helper()
	_, err := s.tty.master.WriteString(keys + "\x14")
	require.NoError(t, err)
	printed = s.tty.readUntil(t, func(s string) bool {
		_, rest, ok := strings.Cut(s, "<LINE:")
		return ok && strings.Contains(rest, ">")
	})
	printed, line, _ = strings.Cut(printed, "<LINE:")
	line, _, _ = strings.Cut(line, ">")
	return printed, line
}

// shellServices runs services for shells to complete, and returns a directory with
// some files and the environment by which hdctl finds them all.
func shellServices(t *testing.T) (dir string, env []string) {
	t.Helper()
	a, _, _ := testApp(t)
	for _, name := range []string{"app", "web:a@x-1", "web:a@x-2"} {
		(&fakeService{Status: sampleStatus()}).run(t, a.runDir, name)
	}
	dir = t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "the-program"), nil, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "odd $name"), nil, 0o755))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "the-units"), 0o755))
	return dir, []string{"TEST_RUN_DIR=" + a.runDir}
}

// What is typed, and what Tab makes of it. All shells agree in this; of the spaces
// at the end there is another test.
var completedLines = []struct{ name, typed, want string }{
	{"a verb", "hdctl upg", "hdctl upgrade"},
	{"a verb of two words", "hdctl unit gen", "hdctl unit generate"},
	{"a flag", "hdctl upgrade --if", "hdctl upgrade --if-changed"},
	{"a value", "hdctl upgrade --wait dr", "hdctl upgrade --wait drained"},
	{"a value after =", "hdctl upgrade --wait=dr", "hdctl upgrade --wait=drained"},
	{"a value after = of which nothing is there", "hdctl wait app --for=generation=7 --color=al", "hdctl wait app --for=generation=7 --color=always"},
	{"a unit", "hdctl status a", "hdctl status app"},
	{"a unit after a value with =", "hdctl conns --listener=http a", "hdctl conns --listener=http app"},
	{"a unit with odd characters", "hdctl status we", "hdctl status web:a@x-"},
	{"a unit with odd characters, after a colon", "hdctl status web:", "hdctl status web:a@x-"},
	{"a unit with odd characters, after a letter", "hdctl status web:a", "hdctl status web:a@x-"},
	{"a unit with odd characters, after an at", "hdctl status web:a@", "hdctl status web:a@x-"},
	{"in quotes", "hdctl status 'ap", "hdctl status 'app'"},
	{"in double quotes", "hdctl status \"ap", "hdctl status \"app\""},
	{"behind a backslash", "hdctl status web\\:a\\@", "hdctl status web:a@x-"},
	{"a unit with odd characters, to its end", "hdctl status web:a@x-1 web:a@x-", "hdctl status web:a@x-1 web:a@x-2"},
	{"what is to be waited for", "hdctl wait app --for=gen", "hdctl wait app --for=generation="},
	{"a generation to wait for", "hdctl wait app --for=generation=7", "hdctl wait app --for=generation=7"},
	{"a generation", "hdctl end app --generation=5", "hdctl end app --generation=5"},
	{"the name of a socket", "hdctl conns app --listener ht", "hdctl conns app --listener http"},
	{"after an address", "hdctl unit generate x --listen http=127.0.0.1:8080 --listen a@b:c=1 --dyn", "hdctl unit generate x --listen http=127.0.0.1:8080 --listen a@b:c=1 --dynamic-user"},
	{"after an address and =", "hdctl unit generate x --listen=http=127.0.0.1:8080 --dyn", "hdctl unit generate x --listen=http=127.0.0.1:8080 --dynamic-user"},
	{"after a quoted word", `hdctl pause app --reason 'a "b' --ti`, `hdctl pause app --reason 'a "b' --timeout`},
	{"a file", "hdctl upgrade --binary ./the-p", "hdctl upgrade --binary ./the-program"},
	{"a file after =", "hdctl upgrade --binary=./the-p", "hdctl upgrade --binary=./the-program"},
	{"a directory", "hdctl unit generate --output the-u", "hdctl unit generate --output the-units"},
	{"a directory after =", "hdctl unit generate --output=the-", "hdctl unit generate --output=the-units"},
	{"a program", "hdctl run -- ./the-p", "hdctl run -- ./the-program"},
	{"a file for a program", "hdctl run -- cat the-p", "hdctl run -- cat the-program"},
	{"nothing", "hdctl upgrade app x", "hdctl upgrade app x"},
}

func testShell(t *testing.T, s *shell) {
	for _, tt := range completedLines {
		t.Run(tt.name, func(t *testing.T) {
			_, line := s.keys(t, tt.typed+"\t")
			assert.Equal(t, tt.want, strings.TrimRight(line, " /"))
		})
	}
	t.Run("the end of a word", func(t *testing.T) {
		_, line := s.keys(t, "hdctl upg\t")
		assert.Equal(t, "hdctl upgrade ", line)
		_, line = s.keys(t, "hdctl wait app --for=gen\t")
		assert.Equal(t, "hdctl wait app --for=generation=", line)
	})
	t.Run("a choice", func(t *testing.T) {
		printed, _ := s.keys(t, "hdctl end app --generation \t\t")
		assert.Contains(t, printed, "6")
		assert.Contains(t, printed, "5")
	})
}

// Any bash: with its own way to cut words, and without; with bash-completion, where
// that is installed.
func TestBash(t *testing.T) {
	t.Parallel()
	dir, env := shellServices(t)
	const keys = `
bind 'set enable-bracketed-paste off' 2>/dev/null; bind 'set bell-style none'; bind 'set completion-query-items 0'; bind 'set page-completions off'
show() { echo "<LINE:$READLINE_LINE>"; READLINE_LINE=; READLINE_POINT=0; }
bind -x '"\C-t": show'
source <(hdctl completion bash)
echo REA""DY
`
	for _, tt := range []struct{ name, before string }{
		{"plain", ""},
		{"not cut at = and :", `COMP_WORDBREAKS=$' \t\n"\'><;|&('`},
		{"bash-completion", "source /usr/share/bash-completion/bash_completion"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if file, ok := strings.CutPrefix(tt.before, "source "); ok {
				if _, err := os.Stat(file); err != nil {
					t.Skip("bash-completion is not installed")
				}
			}
			rc := filepath.Join(t.TempDir(), "rc")
			require.NoError(t, os.WriteFile(rc, []byte(tt.before+"\n"+keys), 0o600))
			s := startShell(t, dir, env, "bash", "--rcfile", rc, "-i")
			testShell(t, s)
			// What is the name of a file must not become code.
			_, line := s.keys(t, "hdctl upgrade --binary=./odd\t")
			assert.Equal(t, `hdctl upgrade --binary=./odd\ \$name`, strings.TrimRight(line, " "))
			if tt.name == "bash-completion" {
				// It calls our function by itself, and not quite as bash does.
				for _, typed := range []string{"nohup hdctl wait app --for=", "hdctl run -- hdctl wait app --for="} {
					_, line := s.keys(t, typed+"dr\t")
					assert.Equal(t, typed+"drained ", line)
					_, line = s.keys(t, typed+"generation=7\t")
					assert.Equal(t, typed+"generation=7 ", line)
					printed, _ := s.keys(t, typed+"\t\t")
					assert.Contains(t, printed, "ready")
				}
			}
		})
	}
}

func TestZsh(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("zsh"); err != nil {
		t.Skip("zsh is not installed")
	}
	dir, env := shellServices(t)
	const keys = `
unsetopt BEEP ALWAYS_LAST_PROMPT PROMPT_SP PROMPT_CR
PS1= RPS1=
autoload -Uz compinit && compinit -u -D
zstyle ':completion:*' insert-tab false
show() { print -r -- "<LINE:$BUFFER>"; BUFFER= }
zle -N show
bindkey -e
bindkey '^T' show
source <(hdctl completion zsh)
echo REA""DY
`
	require.NoError(t, os.WriteFile(filepath.Join(dir, ".zshrc"), []byte(keys), 0o600))
	s := startShell(t, dir, env, "zsh", "-d", "-i")
	testShell(t, s)
	t.Run("descriptions", func(t *testing.T) {
		printed, _ := s.keys(t, "hdctl end app --generation \t\t")
		assert.Contains(t, printed, "draining v2.3.0")
	})
}

// fish tells what it would complete without a terminal.
func TestFish(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("fish"); err != nil {
		t.Skip("fish is not installed")
	}
	dir, env := shellServices(t)
	var script strings.Builder
	script.WriteString("hdctl completion fish | source\n")
	for _, tt := range completedLines {
		script.WriteString("echo; echo '=='\ncomplete --do-complete " + fishQuote(tt.typed) + "\n")
	}
	cmd := exec.Command("fish", "--no-config", "-c", script.String())
	cmd.Dir, cmd.Env = dir, append(append(os.Environ(), env...), "HOME="+dir, "GORACE=atexit_sleep_ms=0")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	answers := strings.Split(string(out), "\n==\n")[1:]
	require.Len(t, answers, len(completedLines), string(out))
	for i, tt := range completedLines {
		t.Run(tt.name, func(t *testing.T) {
			want := strings.Trim(tt.want[strings.LastIndex(tt.want, " ")+1:], `'"`)
			if tt.typed == tt.want && tt.name == "nothing" {
				assert.Empty(t, strings.TrimSpace(answers[i]))
				return
			}
			assert.Contains(t, answers[i], want)
		})
	}
	assert.Contains(t, string(out), "draining v2.2.9", "with descriptions")
}

func fishQuote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}
