package lint

// For tests.
var (
	Words     = words
	Variables = variables
)
