package main

import (
	"context"
	"embed"
	"path"
)

// completionCmd is "hdctl completion".
type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"The shell: bash, zsh or fish."`
}

// Help is shown by hdctl completion --help.
func (completionCmd) Help() string {
	return `The script completes verbs, flags and their values, services that run, and numbers of generations. It asks hdctl each time, and so need not be made again for another version. The packages of hdctl install it for all three shells.

Example:

    # bash, for now; and for good, with the package bash-completion
    source <(hdctl completion bash)
    hdctl completion bash > ~/.local/share/bash-completion/completions/hdctl

    # zsh, for now (after compinit); and for good, in a directory of $fpath
    source <(hdctl completion zsh)
    hdctl completion zsh > /usr/local/share/zsh/site-functions/_hdctl

    # fish
    hdctl completion fish > ~/.config/fish/completions/hdctl.fish
`
}

//go:embed completion
var completionScripts embed.FS

// Run prints the script.
func (c *completionCmd) Run(_ context.Context, a *app) error {
	script, err := completionScripts.ReadFile(path.Join("completion", "hdctl."+c.Shell))
	if err != nil {
		return exitf(exitUsage, "there is no completion for %s: %w", c.Shell, err)
	}
	a.printf("%s", script)
	return nil
}
