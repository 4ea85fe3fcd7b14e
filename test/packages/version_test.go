package packages

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestVersion follows a repository from its first commit to a release and beyond: the
// versions of the packages ascend, for dpkg and for rpm.
func TestVersion(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	script, err := os.ReadFile("../../packaging/build.sh")
	require.NoError(t, err)
	require.NoError(t, os.Mkdir(filepath.Join(root, "packaging"), 0o755))
	build := filepath.Join(root, "packaging/build.sh")
	require.NoError(t, os.WriteFile(build, script, 0o644))
	run := func(args ...string) string {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "VERSION=", "OUT="+filepath.Join(root, "dist"),
			"GIT_COMMITTER_DATE=2026-01-02T03:04:05+0900", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b")
		output, err := cmd.CombinedOutput()
		require.NoError(t, err, "%v: %s", args, output)
		return strings.TrimSpace(string(output))
	}
	commit := func() { run("git", "commit", "--quiet", "--allow-empty", "--message", "x") }

	run("git", "init", "--quiet")
	var versions []string
	for _, tag := range []string{"", "v1.0.0-rc1", "v1.0.0", "", "v1.0.1"} {
		commit()
		if tag != "" {
			run("git", "tag", tag)
		}
		versions = append(versions, run("sh", build, "version"))
	}
	assert.Regexp(t, `^0\.0~git20260101180405\.[0-9a-f]{7}$`, versions[0])
	assert.Equal(t, "1.0.0~rc1", versions[1])
	assert.Equal(t, "1.0.0", versions[2])
	assert.Regexp(t, `^1\.0\.0\+1\.g[0-9a-f]+$`, versions[3])
	assert.Equal(t, "1.0.1", versions[4])
	for i, v := range versions[1:] {
		run("dpkg", "--compare-versions", versions[i], "lt", v)
		assert.Equal(t, "-1", run("rpm", "--eval", `%{lua:print(rpm.vercmp("`+versions[i]+`", "`+v+`"))}`))
	}
}
