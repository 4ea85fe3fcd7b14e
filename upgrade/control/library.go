package control

import "runtime/debug"

// libraryModule is where this library comes from.
const libraryModule = "github.com/hdctl/handoff"

// LibraryIn returns the version of this library in a program, as the linker has
// noted it there: that of the module, or "(devel)" of a working copy. ok is false for
// a program that is not written with the library.
func LibraryIn(info *debug.BuildInfo) (version string, ok bool) {
	if info.Main.Path == libraryModule {
		return info.Main.Version, true
	}
	for _, m := range info.Deps {
		if m.Path == libraryModule {
			return m.Version, true
		}
	}
	return "", false
}
