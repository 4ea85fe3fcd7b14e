package units_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hdctl/handoff/units"
)

func TestDiff(t *testing.T) {
	for _, tt := range []struct{ name, old, new, want string }{
		{"same", "a\nb\n", "a\nb\n", ""},
		{"changed", "a\nb\nc\n", "a\nB\nc\n", "--- old\n+++ new\n@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n"},
		{"added at the end", "a\n", "a\nb\n", "--- old\n+++ new\n@@ -1 +1,2 @@\n a\n+b\n"},
		{"no end of line", "a", "a\n", "--- old\n+++ new\n@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+a\n"},
		{"two hunks", "1\n2\n3\n4\n5\n6\n7\n8\n9\n", "0\n2\n3\n4\n5\n6\n7\n8\n", "--- old\n+++ new\n@@ -1,4 +1,4 @@\n-1\n+0\n 2\n 3\n 4\n@@ -6,4 +6,3 @@\n 6\n 7\n 8\n-9\n"},
		{"one hunk", "1\n2\n3\n4\n5\n6\n7\n8\n", "0\n2\n3\n4\n5\n6\n7\n", "--- old\n+++ new\n@@ -1,8 +1,7 @@\n-1\n+0\n 2\n 3\n 4\n 5\n 6\n 7\n-8\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			assert.Equal(t, tt.want, units.Diff("old", []byte(tt.old), "new", []byte(tt.new)))
		})
	}
	assert.Equal(t, "--- /dev/null\n+++ new\n@@ -0,0 +1 @@\n+a\n", units.Diff("old", nil, "new", []byte("a\n")))
	assert.Equal(t, "--- old\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n", units.Diff("old", []byte("a\n"), "new", nil))
	// Too much for a table: all of it, but in order.
	long := strings.Repeat("x\n", 3000)
	diff := units.Diff("old", []byte("a\n"+long+"b\n"), "new", []byte("b\n"+strings.Repeat("y\n", 3000)+"a\n"))
	assert.Equal(t, 3002, strings.Count(diff, "\n-"))
}

// TestDiffPatches has patch(1) make the new text of the old one.
func TestDiffPatches(t *testing.T) {
	patch, err := exec.LookPath("patch")
	if err != nil {
		t.Skip("patch is not installed")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SliceOfN(rapid.SampledFrom([]string{"a\n", "b\n", "c\n", "\n"}), 1, 30)
		old, new := strings.Join(text.Draw(t, "old"), ""), strings.Join(text.Draw(t, "new"), "")
		diff := units.Diff("file", []byte(old), "file", []byte(new))
		if (diff == "") != (old == new) {
			t.Fatalf("%q", diff)
		}
		if diff == "" {
			return
		}
		if err := os.WriteFile(file, []byte(old), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(patch, "--quiet", "--fuzz=0", file)
		cmd.Stdin = strings.NewReader(diff)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s\n%s", err, out, diff)
		}
		got, err := os.ReadFile(file)
		if err != nil || string(got) != new {
			t.Fatalf("%q is not %q: %v\n%s", got, new, err, diff)
		}
	})
}

func TestRestartFor(t *testing.T) {
	const before = "# Old.\n[Unit]\nDescription=a\n[Service]\nExecStart=/bin/a\nEnvironment=A=1\nTimeoutStopSec=5s\nType=notify\n[Install]\nWantedBy=a.target\n"
	for _, tt := range []struct {
		name, old, new string
		want           []string
	}{
		{"comment", "# Old.", "# New.", nil},
		{"description", "Description=a", "Description=b", nil},
		{"what systemd does itself", "TimeoutStopSec=5s", "TimeoutStopSec=6s", nil},
		{"variable", "A=1", "A=2", []string{"Environment"}},
		{"removed", "Environment=A=1\n", "", []string{"Environment"}},
		{"added", "Type=notify\n", "Type=notify\nUser=a\nExecStop=/bin/b\n", []string{"User"}},
		{"two", "Environment=A=1\n", "Environment=A=1\nEnvironment=B=1\nUser=a\n", []string{"Environment", "User"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := units.RestartFor([]byte(before), []byte(strings.Replace(before, tt.old, tt.new, 1)))
			require.NoError(t, err)
			assert.Equal(t, tt.want, got)
		})
	}
	_, err := units.RestartFor([]byte("[Service"), nil)
	require.Error(t, err)
}
