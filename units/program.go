package units

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// driftOfProgram compares the command line.
func driftOfProgram(u loaded, p process, environment map[string]string) Finding {
	const name = "program"
	args, err := p.list("cmdline")
	if err != nil {
		return unseen(name, err)
	}
	path, argv, ok := execStart(u.values["ExecStart"])
	if !ok || len(args) == 0 {
		return Finding{name, FindingOK, u.name + " has no single ExecStart= to compare with", ""}
	}
	args = withoutInterpreter(args, path)
	if !samePath(path, args[0], argv) {
		return Finding{
			name, FindingWarning,
			fmt.Sprintf("%s starts %s, process %d was started as %s, and so will be its successors", u.name, path, p, args[0]),
			hintRestart,
		}
	}
	if !sameArguments(argv, args[1:], path, environment) {
		// Not the arguments: some programs take passwords there.
		return Finding{name, FindingWarning, fmt.Sprintf("%s starts %s with other arguments than process %d has", u.name, path, p), hintRestart}
	}
	return Finding{name, FindingOK, fmt.Sprintf("process %d has the program and the arguments of %s", p, u.name), ""}
}

// execStart takes apart the property of that name: "{ path=P ; argv[]=A B C ;
// ignore_errors=no ; … }". The arguments are printed without quotes: where one has
// blanks, two are read.
func execStart(value string) (path string, argv []string, ok bool) {
	rest, ok := strings.CutPrefix(value, "{ path=")
	if !ok || strings.Contains(value, "}\n{ path=") { // none, or several
		return "", nil, false
	}
	path, rest, ok = strings.Cut(rest, " ; argv[]=")
	if !ok {
		return "", nil, false
	}
	line, _, ok := cutLast(rest, " ; ignore_errors=")
	argv = strings.Fields(line)
	return path, argv, ok && len(argv) > 0
}

// withoutInterpreter drops what the kernel has put before the path of a script: the
// interpreter, and at most one argument of it.
func withoutInterpreter(args []string, path string) []string {
	if i := slices.Index(args[:min(len(args), 3)], path); i > 0 {
		return args[i:]
	}
	return args
}

// samePath compares the path of a unit with the name that a process goes by.
func samePath(path, name string, argv []string) bool {
	switch {
	case path == name, strings.HasPrefix(name, "/proc/self/fd/"): // the latter was rolled back, from an open file
		return true
	case argv[0] != path: // "ExecStart=@path name"
		return true
	case !filepath.IsAbs(path) || !filepath.IsAbs(name): // found in a directory
		return filepath.Base(path) == filepath.Base(name)
	}
	return false
}

// sameArguments compares, without regard to how much blank is between words and in
// them. What may be a variable may also be none.
func sameArguments(argv, args []string, path string, environment map[string]string) bool {
	have := strings.Fields(strings.Join(args, " "))
	if argv[0] == path {
		return matchWords(argv[1:], have, environment)
	}
	// The name can be several words.
	for i := range argv {
		if matchWords(argv[i+1:], have, environment) {
			return true
		}
	}
	return false
}

// matchWords reports whether have can be what systemd makes of want.
func matchWords(want, have []string, environment map[string]string) bool {
	for i, word := range want {
		if !strings.Contains(word, "$") {
			if len(have) == 0 || have[0] != word {
				return false
			}
			have = have[1:]
			continue
		}
		for _, words := range [][]string{{word}, strings.Fields(expand(word, environment))} {
			if len(words) <= len(have) && slices.Equal(words, have[:len(words)]) &&
				matchWords(want[i+1:], have[len(words):], environment) {
				return true
			}
		}
		return false
	}
	return len(have) == 0
}

// expand replaces variables in a word: systemd.service(5), "Command lines".
func expand(word string, environment map[string]string) string {
	if name, ok := strings.CutPrefix(word, "$"); ok && isVariable(name) {
		return environment[name]
	}
	var out strings.Builder
	for word != "" {
		before, after, found := strings.Cut(word, "$")
		out.WriteString(before)
		if !found {
			break
		}
		word = after
		name, rest, closed := strings.Cut(strings.TrimPrefix(after, "{"), "}")
		switch {
		case strings.HasPrefix(after, "$"):
			out.WriteByte('$')
			word = after[1:]
		case strings.HasPrefix(after, "{") && closed && isVariable(name):
			out.WriteString(environment[name])
			word = rest
		default:
			out.WriteByte('$')
		}
	}
	return out.String()
}
