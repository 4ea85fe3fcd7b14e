package lint

// For tests.
var (
	ParseSpan = parseSpan
	Words     = words
	Variables = variables
)
