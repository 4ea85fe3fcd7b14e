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
	// A tracked file with a change: it is not that commit.
	run("git", "add", "packaging")
	versions = append(versions, run("sh", build, "version"))
	assert.Equal(t, "1.0.1+dirty", versions[5])
	for i, v := range versions[1:] {
		run("dpkg", "--compare-versions", versions[i], "lt", v)
		assert.Equal(t, "-1", run("rpm", "--eval", `%{lua:print(rpm.vercmp("`+versions[i]+`", "`+v+`"))}`))
	}
}

// TestNoVersion has sources without a version: from a tarball, which was unpacked in
// somebody's repository; or with one that deb and rpm cannot have.
func TestNoVersion(t *testing.T) {
	t.Parallel()
	outer := t.TempDir()
	output, err := exec.Command("git", "-C", outer, "-c", "init.defaultBranch=main", "init", "--quiet").CombinedOutput()
	require.NoError(t, err, "%s", output)
	script, err := os.ReadFile("../../packaging/build.sh")
	require.NoError(t, err)
	build := filepath.Join(outer, "hand off", "packaging", "build.sh")
	require.NoError(t, os.MkdirAll(filepath.Dir(build), 0o755))
	require.NoError(t, os.WriteFile(build, script, 0o644))
	for _, args := range [][]string{
		{"add", "."},
		{"-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--message", "x"},
		{"tag", "v9.9"},
	} {
		output, err := exec.Command("git", append([]string{"-C", outer}, args...)...).CombinedOutput()
		require.NoError(t, err, "%v: %s", args, output)
	}
	for _, tt := range []struct{ version, want string }{
		{"", "set VERSION and SOURCE_DATE_EPOCH"},
		{"1.0-rc1", "no version for deb and rpm: 1.0-rc1"},
		{"1.0 -X main.x=y", "no version for deb and rpm"},
		{"dev", "no version for deb and rpm"},
	} {
		cmd := exec.Command("sh", build)
		cmd.Env = append(os.Environ(), "VERSION="+tt.version, "SOURCE_DATE_EPOCH=1767225600", "OUT="+filepath.Join(outer, "dist"))
		output, err := cmd.CombinedOutput()
		require.Error(t, err, tt.version)
		assert.Contains(t, string(output), tt.want)
		assert.NoDirExists(t, filepath.Join(outer, "dist"))
	}
}
