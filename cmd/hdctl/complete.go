package main

import (
	"context"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/alecthomas/kong"
)

// completeCmd is "hdctl __complete", which the scripts of "hdctl completion" run to
// know what could come next. It and the scripts are two parts of one thing, of the
// same version: nobody else should rely on what it prints, which is
//
//   - a candidate a line; for zsh and fish with a description after a tab;
//   - or ":files", ":directories" or ":command" for what the shell knows better: the
//     files that begin like the word, or a command line that begins after "--".
//
// It says nothing on stderr and never fails: where it does not know, it prints
// nothing, and it takes no longer than completeLimit for what it has to ask.
type completeCmd struct {
	Shell   string   `enum:"plain,bash,zsh,fish" default:"plain" placeholder:"SHELL" help:"For which shell."`
	Replace string   `placeholder:"TEXT" help:"The end of the last word that bash is going to replace."`
	Words   []string `arg:"" optional:"" help:"The words after hdctl up to the cursor, the last of which may be empty or unfinished. With --shell=bash: the line up to the cursor, in one."`
}

// completeLimit is how long a service may take to answer while somebody holds a
// finger on the Tab key.
const completeLimit = 300 * time.Millisecond

// candidate is what a word can become.
type candidate struct {
	text string
	help string
}

// directive says what the shell is to complete by itself.
type directive string

const (
	noDirective directive = ""
	files       directive = ":files"
	directories directive = ":directories"
	command     directive = ":command"
)

// Run prints the candidates.
func (c *completeCmd) Run(ctx context.Context, a *app) error {
	parser, err := a.newParser(new(cli))
	if err != nil {
		return err
	}
	c.run(ctx, a, parser.Model.Node)
	return nil
}

// run is Run with the grammar.
func (c *completeCmd) run(ctx context.Context, a *app, grammar *kong.Node) {
	words := c.Words
	if c.Shell == "bash" {
		words = lastCommand(strings.Join(c.Words, " "))
	}
	if len(words) == 0 {
		words = []string{""}
	}
	before, word := words[:len(words)-1], words[len(words)-1]
	p := follow(grammar, before)
	a.quiet = true
	a.globals.User = p.given("user") != ""
	if socket := p.given("socket"); socket != "" {
		a.globals.Socket = socket
	}
	ctx, cancel := context.WithTimeout(ctx, completeLimit)
	defer cancel()
	candidates, d := p.complete(ctx, a, word)
	c.print(a, word, candidates, d)
}

// print prints the candidates as the shell wants them. zsh and fish compare them
// with the word themselves, in the way that their user has set; bash does not, and
// wants only the part of a candidate that takes the place of the end of the word.
func (c *completeCmd) print(a *app, word string, candidates []candidate, d directive) {
	if d != noDirective {
		a.printf("%s\n", d)
		return
	}
	kept := ""
	if c.Shell == "bash" {
		var ok bool
		if kept, ok = keptOf(word, c.Replace); !ok {
			return
		}
	}
	for _, cand := range candidates {
		switch c.Shell {
		case "bash":
			// It puts it on the line as it is, where it would be executed.
			if strings.HasPrefix(cand.text, word) && !strings.ContainsFunc(cand.text, special) {
				a.printf("%s\n", strings.TrimPrefix(cand.text, kept))
			}
		case "plain":
			if strings.HasPrefix(cand.text, word) {
				a.printf("%s\n", cand.text)
			}
		default:
			a.printf("%s\t%s\n", cand.text, cand.help)
		}
	}
}

// special tells whether a character may mean something to a shell.
func special(r rune) bool {
	return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("@%_+=:,./-", r)
}

// keptOf is the part of word that bash leaves as it is when it replaces what it
// takes for the word: it ends a word at each character of COMP_WORDBREAKS, so of
// "--for=generation=7" it sees "7" only, and of "web@blue" "@blue". ok is false if that is not the end of word.
func keptOf(word, replaced string) (kept string, ok bool) {
	// bash-completion, when it completes what follows sudo, gives a lone "=" in
	// place of the nothing after it.
	replaced = strings.TrimLeft(replaced, "=:")
	if kept, ok = strings.CutSuffix(word, replaced); ok {
		return kept, true
	}
	// The word may be in quotes.
	if open := lastCommand("hdctl " + replaced); replaced != "" && len(open) == 1 {
		replaced = open[0]
	}
	return strings.CutSuffix(word, replaced)
}

// lastCommand splits a line of bash, up to the cursor, into words as the shell
// does, and returns those of its last command without the first, which is hdctl.
// Nothing is expanded. The last word may be empty, and may have a quote that is not
// closed.
//
// bash has done so itself, but gives the words in COMP_WORDS, which are cut at "=",
// ":" and "@", too, if these are in COMP_WORDBREAKS; and what was cut cannot be
// told there from what was apart.
func lastCommand(line string) []string {
	var words []string
	var word strings.Builder
	inWord := false
	quote := rune(0)
	end := func() {
		if inWord {
			words = append(words, word.String())
			word.Reset()
			inWord = false
		}
	}
	runes := []rune(line)
	for i := 0; i < len(runes); i++ {
		r := runes[i]
		switch {
		case quote == '\'' && r == quote, quote == '"' && r == quote:
			quote = 0
		case quote == '\'':
			word.WriteRune(r)
		case r == '\\' && i+1 < len(runes) && (quote == 0 || strings.ContainsRune("$`\"\\", runes[i+1])):
			i++
			word.WriteRune(runes[i])
			inWord = true
		case r == '\\' && i+1 == len(runes):
			// What it stands before is still to come.
		case quote == '"':
			word.WriteRune(r)
		case r == '\'', r == '"':
			quote, inWord = r, true
		case strings.ContainsRune(" \t\n", r):
			end()
		case strings.ContainsRune(";|&", r):
			end()
			words = nil
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if !inWord {
		words = append(words, "")
	}
	end()
	return slices.Delete(words, 0, min(1, len(words)))
}
