package lint_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/units/lint"
	"github.com/hdctl/handoff/upgrade/control"
)

// Each rule has a directory with units that break it and nothing else, and with
// units that do not. The files bad.service, bad.socket and bad-admin.socket are those
// of a service app; what is missing of the first two is in testdata/base.
func TestRules(t *testing.T) {
	rules := lint.Rules()
	assert.GreaterOrEqual(t, len(rules), 30)
	var ids []string
	for _, r := range rules {
		ids = append(ids, r.ID)
		t.Run(r.ID, func(t *testing.T) {
			for _, kind := range []string{"bad", "good"} {
				findings := lint.Check(example(t, t.TempDir(), r.ID, kind), optionsFor(r, kind))
				if kind == "good" {
					assert.Empty(t, findings)
					continue
				}
				require.NotEmpty(t, findings)
				for _, f := range findings {
					assert.Equal(t, r.ID, f.Rule, f.Message)
					assert.Equal(t, r.Severity, f.Severity)
					assert.FileExists(t, f.File)
					assert.NotContains(t, f.Message+f.Fix, "%!", "a wrong format")
					assert.NotContains(t, f.Fix, "NAME.")
				}
			}
		})
	}
	entries, err := os.ReadDir("testdata")
	require.NoError(t, err)
	for _, e := range entries {
		if e.Name() != "base" && e.Name() != "fuzz" {
			assert.Contains(t, ids, e.Name(), "a directory in testdata without a rule")
		}
	}
}

// optionsFor returns the options with which the files of a rule are to be looked at.
func optionsFor(r lint.Rule, kind string) lint.Options {
	o := lint.Options{Systemd: r.Since}
	if r.Since < 252 {
		o.Systemd = 0
	}
	needs := func(names ...string) {
		n := new(control.Needs)
		for _, name := range names {
			n.Sockets = append(n.Sockets, control.Need{Name: name})
		}
		o.Needs = map[string]*control.Needs{"app.service": n}
	}
	switch r.ID + " " + kind {
	case "socket-missing bad":
		needs("http", "admin", "admin")
	case "socket-unclaimed bad":
		needs()
	case "socket-missing good", "socket-unclaimed good":
		needs("http")
	}
	return o
}

// example writes the units of an example to dir, and loads them.
func example(t *testing.T, dir, rule, kind string) []*lint.Unit {
	t.Helper()
	own, err := filepath.Glob(filepath.Join("testdata", rule, kind+"*"))
	require.NoError(t, err)
	require.NotEmpty(t, own, "the rule has no %s file", kind)
	files := make(map[string]string)
	suffixes := ""
	for _, file := range own {
		name := "app" + strings.TrimPrefix(filepath.Base(file), kind)
		files[name] = file
		suffixes += filepath.Ext(name)
	}
	for _, base := range []string{"app.service", "app.socket"} {
		if _, ok := files[base]; !ok && !(rule == "no-socket" && kind == "bad") && rule+kind != "template-unitbad" {
			files[base] = filepath.Join("testdata", "base", base)
		}
	}
	if rule+kind == "template-unitbad" {
		files["app@1.socket"] = filepath.Join("testdata", "base", "app.socket")
	}
	for name, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), text, 0o644))
	}
	units, err := lint.LoadSite(dir)
	require.NoError(t, err)
	return units
}

// What a rule says about itself: enough, and in the right form.
func TestRuleTexts(t *testing.T) {
	seen := make(map[string]bool)
	for _, r := range lint.Rules() {
		assert.Regexp(t, regexp.MustCompile(`^[a-z]+[a-z0-9]*(-[a-z0-9]+)*$`), r.ID)
		assert.False(t, seen[r.ID], "two rules are called %s", r.ID)
		seen[r.ID] = true
		assert.Contains(t, []lint.Severity{lint.Error, lint.Warning}, r.Severity, r.ID)
		assert.Regexp(t, `^[^\n]+\.$`, r.Summary, r.ID)
		lines := strings.Count(r.Why, "\n") + 1
		assert.True(t, lines >= 2 && lines <= 5, "%s: %d lines of why", r.ID, lines)
		for line := range strings.Lines(r.Why) {
			assert.LessOrEqual(t, len(line), 92, "%s: %s", r.ID, line)
		}
		assert.Regexp(t, `\([1-8]\)|measured`, r.Source, r.ID)
		assert.NotEmpty(t, r.Fix, r.ID)
		assert.NotEqual(t, r.Bad, r.Good, r.ID)

		got, ok := lint.Lookup(r.ID)
		assert.True(t, ok)
		assert.Equal(t, r.Summary, got.Summary)
		if strings.HasPrefix(r.ID, "socket-missing") || strings.HasPrefix(r.ID, "socket-unclaimed") || r.ID == "template-unit" {
			continue // not to be seen in a unit
		}
		// The lines of "explain" are those that are tested.
		for _, kind := range []struct{ name, text string }{{"bad", r.Bad}, {"good", r.Good}} {
			files, err := filepath.Glob(filepath.Join("testdata", r.ID, kind.name+"*"))
			require.NoError(t, err)
			all := ""
			for _, file := range append(files, "testdata/base/app.service", "testdata/base/app.socket") {
				text, err := os.ReadFile(file)
				require.NoError(t, err)
				all += string(text)
			}
			for line := range strings.Lines(kind.text) {
				if line = strings.TrimSpace(line); line != "" && (line[0] != '#' || strings.HasPrefix(line, "# hdctl")) {
					assert.True(t, slices.Contains(strings.Split(all, "\n"), line), "%s: %q is not in a %s file", r.ID, line, kind.name)
				}
			}
		}
	}
	_, ok := lint.Lookup("nonsense")
	assert.False(t, ok)
}

// systemd understands the good files.
func TestSystemdVerifiesTheGoodFiles(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed: nobody has checked the good files")
	}
	truth, err := exec.LookPath("true") // verify looks whether the programs exist
	require.NoError(t, err)
	seen := make(map[string]bool) // many are the same
	for _, r := range lint.Rules() {
		if r.Since > 252 {
			continue // not known to every systemd that this runs on
		}
		dir := t.TempDir()
		all := ""
		args := []string{"verify", "--recursive-errors=no"}
		for _, u := range example(t, dir, r.ID, "good") {
			text, err := os.ReadFile(u.Files[0])
			require.NoError(t, err)
			changed := regexp.MustCompile(`/usr/bin/(app|hdctl)`).ReplaceAllString(string(text), truth)
			changed = strings.ReplaceAll(changed, "User=app", "User=daemon")
			require.NoError(t, os.WriteFile(u.Files[0], []byte(changed), 0o644))
			args = append(args, u.Files[0])
			all += changed
		}
		if seen[all] {
			continue
		}
		seen[all] = true
		out, err := exec.Command(analyze, args...).CombinedOutput()
		assert.NoError(t, err, "%s: %s", r.ID, out)
		assert.Empty(t, string(out), r.ID)
	}
}
