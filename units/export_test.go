package units

// What Drift is made of.
var (
	ParseShow        = parseShow
	ParseEnvironment = parseEnvironment
	Words            = words
	DriftProperties  = driftProperties
)
