package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/hdctl/handoff/upgrade/control"
)

// versionCmd is "hdctl version".
type versionCmd struct {
	Unit string `arg:"" optional:"" name:"unit" help:"A service: print what it runs, too."`
}

// Help is shown by hdctl version --help.
func (versionCmd) Help() string {
	return `Example:

    hdctl version
    hdctl version app -o json
`
}

// versionReport is what "hdctl version -o json" prints.
type versionReport struct {
	Client struct {
		Version    string `json:"version"`
		APIVersion int    `json:"api_version"`
		Go         string `json:"go"`
	} `json:"client"`
	Service *control.Version `json:"service,omitempty"`
}

// Run prints the versions.
func (c *versionCmd) Run(ctx context.Context, a *app) error {
	var report versionReport
	report.Client.Version = buildVersion()
	report.Client.APIVersion = control.APIVersion
	report.Client.Go = runtime.Version()
	if c.Unit != "" || a.globals.Socket != "" {
		t, err := a.target(c.Unit)
		if err != nil {
			return err
		}
		err = a.call(ctx, t, a.patience.status, func(ctx context.Context, client *control.Client) (err error) {
			report.Service, err = client.Version(ctx)
			return err
		})
		if err != nil {
			return err
		}
	}
	switch a.globals.Format {
	case "json":
		return a.printJSON(report, true)
	case "jsonl":
		return a.printJSON(report, false)
	}
	a.printf("%s\n", clientVersion())
	if v := report.Service; v != nil {
		a.printf("%s %s (generation %d, library %s, control API %d)\n",
			clean(v.Service), orDash(clean(v.Version)), v.Generation, orDash(clean(v.Library)), v.APIVersion)
	}
	return nil
}

// clientVersion is hdctl's version in one line.
func clientVersion() string {
	return fmt.Sprintf("hdctl %s (control API %d, %s, %s/%s)", buildVersion(), control.APIVersion, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// buildVersion is what the build says: the version of the release, else that of
// the module, as "go install ...@v1.2.3" leaves it.
func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
