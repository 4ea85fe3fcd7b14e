package pulse

// What tests of the layout and the histogram need to know.
const (
	Size = size
	Seal = seals
)

var (
	Bucket = bucket
	Lower  = lower
	Upper  = upper
)
