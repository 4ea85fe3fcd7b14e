// Broken is a version of the demo service that cannot start. It says why, and
// exits with 3.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "reading the configuration")
	fmt.Fprintln(os.Stderr, "open /etc/demo/database.toml: no such file or directory")
	os.Exit(3)
}
