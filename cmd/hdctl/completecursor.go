package main

import (
	"context"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// cursor is where a command line has come to before the word under the cursor, by
// the grammar that the line is going to be parsed by.
type cursor struct {
	node    *kong.Node   // the verb so far
	wants   *kong.Flag   // the next word is the value of this flag
	flags   []*kong.Flag // that were given
	values  map[string]string
	args    []string // that are not flags, after the verb
	ended   bool     // by "--": what follows are no flags
	command bool     // what follows is the command line of another program
	lost    bool     // nothing that could come is right any more
}

// follow walks through the grammar under root by words.
func follow(root *kong.Node, words []string) *cursor {
	p := &cursor{node: root, values: make(map[string]string)}
	for _, word := range words {
		switch {
		case p.command || p.lost:
			p.args = append(p.args, word)
		case p.wants != nil:
			p.give(p.wants, word)
			p.wants = nil
		case p.ended:
			p.arg(word)
		case word == "--":
			p.ended = true
			p.command = p.passes()
		case strings.HasPrefix(word, "--"):
			p.long(word[2:])
		case len(word) > 1 && word[0] == '-':
			p.short(word[1:])
		default:
			p.arg(word)
		}
	}
	return p
}

// given is the value of a flag on the line; of one without a value, "true".
func (p *cursor) given(flag string) string { return p.values[flag] }

func (p *cursor) give(f *kong.Flag, value string) {
	p.flags = append(p.flags, f)
	p.values[f.Name] = value
}

// long takes --NAME or --NAME=VALUE.
func (p *cursor) long(text string) {
	name, value, ok := strings.Cut(text, "=")
	f := p.flag(func(f *kong.Flag) bool { return f.Name == name || slices.Contains(f.Aliases, name) })
	switch {
	case f == nil:
		// It will be an error. What comes next is not ours to guess.
		p.lost = !ok
	case ok:
		p.give(f, value)
	default:
		p.bare(f)
	}
}

// short takes -x, -xy, -xVALUE.
func (p *cursor) short(text string) {
	for i, r := range text {
		f := p.flag(func(f *kong.Flag) bool { return f.Short == r })
		if f == nil {
			p.lost = true
			return
		}
		if rest := text[i+len(string(r)):]; !isSwitch(f) && rest != "" {
			p.give(f, strings.TrimPrefix(rest, "="))
			return
		}
		p.bare(f)
	}
}

// bare takes a flag whose value, if it has one, is the next word.
func (p *cursor) bare(f *kong.Flag) {
	if isSwitch(f) {
		p.give(f, "true")
		return
	}
	p.wants = f
}

// arg takes a word that is no flag: a part of the verb, or an argument of it.
func (p *cursor) arg(word string) {
	if len(p.node.Children) == 0 {
		p.args = append(p.args, word)
		p.command = p.passes()
		return
	}
	for _, child := range p.node.Children {
		if child.Name == word || slices.Contains(child.Aliases, word) {
			p.node = child
			return
		}
	}
	p.lost = true
}

// passes tells whether the verb hands its arguments on to another program.
func (p *cursor) passes() bool {
	return len(p.node.Positional) > 0 && p.node.Positional[len(p.node.Positional)-1].Passthrough
}

// flag finds a flag of the verb, or one that all have.
func (p *cursor) flag(is func(*kong.Flag) bool) *kong.Flag {
	for _, group := range p.node.AllFlags(false) {
		if i := slices.IndexFunc(group, is); i >= 0 {
			return group[i]
		}
	}
	return nil
}

// isSwitch tells whether a flag has no value.
func isSwitch(f *kong.Flag) bool { return f.IsBool() || f.IsCounter() }

// complete returns what word can become at this place.
func (p *cursor) complete(ctx context.Context, a *app, word string) ([]candidate, directive) {
	switch {
	case p.lost:
		return nil, noDirective
	case p.command:
		return nil, command
	case p.wants != nil:
		return p.value(ctx, a, p.wants.Value, p.wants.PlaceHolder, word)
	case !p.ended && strings.HasPrefix(word, "-"):
		if name, value, ok := strings.Cut(word, "="); ok {
			return p.valueAfter(ctx, a, name, value)
		}
		return p.freeFlags(), noDirective
	case len(p.node.Children) > 0:
		return p.verbs(), noDirective
	}
	if arg := p.positional(); arg != nil {
		return p.value(ctx, a, arg, arg.Name, word)
	}
	return nil, noDirective
}

// valueAfter completes the value in --NAME=VALUE. The candidates are whole words.
func (p *cursor) valueAfter(ctx context.Context, a *app, name, value string) ([]candidate, directive) {
	f := p.flag(func(f *kong.Flag) bool { return "--"+f.Name == name || f.Short != 0 && "-"+string(f.Short) == name })
	if f == nil || isSwitch(f) {
		return nil, noDirective
	}
	candidates, d := p.value(ctx, a, f.Value, f.PlaceHolder, value)
	for i := range candidates {
		candidates[i].text = name + "=" + candidates[i].text
	}
	return candidates, d
}

// verbs are the verbs that there are, or what can follow "unit".
func (p *cursor) verbs() []candidate {
	var out []candidate
	for _, child := range p.node.Children {
		if !child.Hidden {
			out = append(out, candidate{child.Name, child.Help})
		}
	}
	return out
}

// freeFlags are the flags that can still be given: once, if that is not said
// otherwise, and not beside one that excludes them.
func (p *cursor) freeFlags() []candidate {
	var out []candidate
	groups := p.node.AllFlags(true)
	slices.Reverse(groups) // those of the verb first
	for _, group := range groups {
		for _, f := range group {
			if !slices.ContainsFunc(p.flags, func(g *kong.Flag) bool { return excludes(g, f) }) {
				out = append(out, candidate{"--" + f.Name, firstSentence(f.Help)})
			}
		}
	}
	return out
}

// excludes tells whether f cannot be given after g.
func excludes(g, f *kong.Flag) bool {
	if g == f {
		return !f.IsCumulative()
	}
	return slices.ContainsFunc(g.Xor, func(group string) bool { return slices.Contains(f.Xor, group) })
}

// positional is the argument that is next, or nil.
func (p *cursor) positional() *kong.Positional {
	n := len(p.node.Positional)
	switch {
	case len(p.args) < n:
		return p.node.Positional[len(p.args)]
	case n > 0 && p.node.Positional[n-1].IsCumulative():
		return p.node.Positional[n-1]
	}
	return nil
}

// firstSentence is what is left of a help text where there is little room.
func firstSentence(text string) string {
	for _, end := range []string{". ", ": ", " (", "; "} {
		text, _, _ = strings.Cut(text, end)
	}
	return strings.TrimSuffix(text, ".")
}
