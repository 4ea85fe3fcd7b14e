package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// cli is the grammar of the command line. A verb is a struct with a Run method,
// in the file that is called like it.
type cli struct {
	Upgrade  upgradeCmd  `cmd:"" help:"Start a new generation and hand it the sockets; wait until it is confirmed"`
	Check    checkCmd    `cmd:"" help:"Find what speaks against an upgrade, and change nothing"`
	Promote  promoteCmd  `cmd:"" help:"Give the new generation of a staged upgrade more of the new connections, or all"`
	Rollback rollbackCmd `cmd:"" aliases:"abort" help:"Give all back to the old generation, or run the previous version again"`
	Status   statusCmd   `cmd:"" help:"Show generations and draining connections"`
	History  historyCmd  `cmd:"" help:"List the upgrades so far, newest first"`
	Events   eventsCmd   `cmd:"" help:"Print upgrade events"`
	Conns    connsCmd    `cmd:"" help:"List open connections of all generations, oldest first"`
	Wait     waitCmd     `cmd:"" help:"Wait until the service is ready, is drained, or runs a generation"`
	Drain    drainCmd    `cmd:"" help:"Accept nothing more without an upgrade, or again"`
	End      endCmd      `cmd:"" help:"End the drain of old generations before its deadline"`
	Pause    pauseCmd    `cmd:"" help:"Refuse upgrades, with a reason"`
	Resume   resumeCmd   `cmd:"" help:"Allow upgrades again"`

	Reconfigure reconfigureCmd `cmd:"" help:"Have the service read its configuration again, without a new process"`

	Start startCmd `cmd:"" help:"Start the service and its sockets"`
	Stop  stopCmd  `cmd:"" help:"Stop the service and its sockets, so that no client starts it again"`
	Run   runCmd   `cmd:"" help:"Run a program with its sockets as systemd would, for development"`

	List    listCmd    `cmd:"" help:"List services with a control socket"`
	Metrics metricsCmd `cmd:"" help:"Print metrics of services for Prometheus"`
	Doctor  doctorCmd  `cmd:"" help:"Find what on this host, or in a service, would break a handoff"`
	Unit    struct {
		Generate generateCmd `cmd:"" help:"Write matching .socket and .service files"`
		Diff     diffCmd     `cmd:"" help:"Show what generate would change of the installed files"`
		Verify   verifyCmd   `cmd:"" help:"Check unit files for mistakes that would break a handoff"`
		Explain  explainCmd  `cmd:"" help:"Explain a finding of verify"`
	} `cmd:"" help:"Write and check unit files"`
	ExecStop   execStopCmd   `cmd:"" help:"Stop the main process and wait for its end: for ExecStop= of a unit"`
	Completion completionCmd `cmd:"" help:"Print a completion script for bash, zsh or fish"`
	Complete   completeCmd   `cmd:"" name:"__complete" hidden:"" help:"Print what could come next on a command line: for completion scripts"`
	Exec       execCmd       `cmd:"" name:"__exec" hidden:"" help:"Become the program that run starts"`
	Version    versionCmd    `cmd:"" help:"Print hdctl's version, and with UNIT the one that runs"`

	globals `group:"Common flags:"`
}

// globals are the flags of all verbs.
type globals struct {
	Help        helpFlag      `short:"h" help:"Show this help."`
	Format      string        `short:"o" enum:"table,wide,json,jsonl" default:"table" placeholder:"FORMAT" help:"How to print: table, wide, json, jsonl."`
	JSON        bool          `name:"json" help:"The same as -o json."`
	Quiet       bool          `short:"q" help:"No progress and no warnings; and verbs that change something, check, status and wait print nothing on stdout, unless it is JSON."`
	Timeout     time.Duration `placeholder:"DURATION" help:"How long to wait. upgrade, promote, rollback: until it is confirmed; the service enforces that. wait: for what is waited for (for ever). Others: for an answer (2s, 10s, or 1m)."`
	User        bool          `help:"Services of the user: control sockets under $$XDG_RUNTIME_DIR, and the user's systemd."`
	Socket      string        `placeholder:"PATH" help:"Path of the control socket, instead of the one that belongs to UNIT ($$HDCTL_SOCKET)."`
	NoLegend    bool          `help:"No header above tables."`
	NoPager     bool          `hidden:"" help:"Accepted for those who are used to it; there is no pager."`
	Color       string        `enum:"auto,always,never" default:"auto" placeholder:"WHEN" help:"auto, always or never ($$NO_COLOR)."`
	ShowVersion versionFlag   `name:"version" short:"V" help:"Print hdctl's version."`
}

// verb is what a command line comes down to.
type verb interface {
	Run(ctx context.Context, a *app) error
}

// errDone is returned by flags that are a verb of their own, as --help.
var errDone = errors.New("done")

type helpFlag bool

// BeforeReset makes kong act on the flag before it looks at anything else.
func (helpFlag) BeforeReset(ctx *kong.Context) error {
	if err := ctx.PrintUsage(false); err != nil {
		return err
	}
	return errDone
}

type versionFlag bool

func (versionFlag) BeforeReset(a *app) error {
	a.printf("%s\n", clientVersion())
	return errDone
}

// newParser returns the parser of the grammar c.
func (a *app) newParser(c *cli) (*kong.Kong, error) {
	return kong.New(c,
		kong.Name("hdctl"),
		kong.Description("Upgrade services that systemd holds the sockets of, without one failed request."),
		kong.NoDefaultHelp(),
		kong.Bind(a),
		kong.Writers(a.stdout, a.stderr),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, FlagsLast: true, WrapUpperBound: 100}),
		kong.Exit(func(int) {}), // the exit status is ours
	)
}

// parse reads the command line. Without a verb (only --help was asked for) it
// returns nil.
func (a *app) parse(args []string) (verb, error) {
	c := new(cli)
	parser, err := a.newParser(c)
	if err != nil {
		return nil, exitf(exitUsage, "the grammar of the command line: %w", err)
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	ctx, err := parser.Parse(args)
	if errors.Is(err, errDone) {
		return nil, nil
	}
	if err != nil {
		return nil, a.usageError(err)
	}
	if err := a.apply(&c.globals); err != nil {
		return nil, err
	}
	v, ok := ctx.Selected().Target.Addr().Interface().(verb)
	if !ok {
		return nil, exitf(exitUsage, "%s is not a verb", ctx.Selected().Path())
	}
	return v, nil
}

// apply checks the common flags and puts them into force.
func (a *app) apply(g *globals) error {
	if g.JSON {
		g.Format = "json"
	}
	if g.Timeout < 0 {
		return exitf(exitUsage, "--timeout: %v is negative", g.Timeout)
	}
	if g.Socket == "" {
		g.Socket = a.env["HDCTL_SOCKET"]
	}
	a.globals = *g
	a.quiet = g.Quiet
	a.colour = a.wantColour(g.Color)
	return nil
}

// usageError turns an error of kong into ours: exit status 2, and a hint.
func (a *app) usageError(err error) error {
	out := &exitError{code: exitUsage, err: err, hint: "hdctl --help"}
	perr, ok := errors.AsType[*kong.ParseError](err)
	if !ok || perr.Context == nil {
		return out
	}
	node := perr.Context.Selected()
	if node == nil {
		node = perr.Context.Model.Node
	}
	if len(node.Children) == 0 {
		out.hint = fmt.Sprintf("%s --help", node.FullPath())
		return out
	}
	// The verb is missing or unknown: the best hint is the list of all.
	if rest, ok := strings.CutPrefix(err.Error(), "unexpected argument "); ok {
		out.err = fmt.Errorf("unknown verb %s", rest)
	}
	var verbs []string
	for _, leaf := range node.Leaves(true) {
		path := leaf.Name
		for p := leaf.Parent; p != nil && p.Type == kong.CommandNode; p = p.Parent {
			path = p.Name + " " + path
		}
		verbs = append(verbs, path)
	}
	out.hint = "the verbs are: " + strings.Join(verbs, ", ")
	return out
}
