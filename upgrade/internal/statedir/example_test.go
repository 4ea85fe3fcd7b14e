package statedir_test

import (
	"fmt"
	"os"

	"github.com/hdctl/handoff/upgrade/internal/statedir"
)

// The history is lines of JSON, which jq(1) reads, too.
func ExampleDir_Append() {
	tmp, err := os.MkdirTemp("", "app")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(tmp)
	dir, err := statedir.Open(tmp)
	if err != nil {
		fmt.Println(err)
		return
	}
	type upgrade struct {
		From, To int
		Outcome  string
	}
	for n := range 3 {
		if err := dir.Append(upgrade{n, n + 1, "confirmed"}); err != nil {
			fmt.Println(err) // and go on: no upgrade fails because of its record
		}
	}
	last, err := dir.Records(2)
	if err != nil {
		fmt.Println(err)
	}
	for _, record := range last {
		fmt.Println(string(record))
	}
	// Output:
	// {"From":2,"To":3,"Outcome":"confirmed"}
	// {"From":1,"To":2,"Outcome":"confirmed"}
}
