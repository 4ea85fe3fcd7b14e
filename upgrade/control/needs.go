package control

// NeedsEnv is the variable with which a program on this library prints its [Needs]
// instead of serving, when it is "1": one line of JSON on standard output, exit
// status 0. What the program does before it asks for its sockets it does all the
// same.
const NeedsEnv = "HANDOFF_PRINT_SOCKETS"

// Needs is what a program asks for.
type Needs struct {
	Library string `json:"library"` // version of the handoff library in it
	Service string `json:"service"` // what it would be called, started like this
	Version string `json:"version"`
	Sockets []Need `json:"sockets"` // in the order in which it asks for them
}

// Need is a socket that a program asks for by name. Whether it can do without is
// not known.
type Need struct {
	Name    string `json:"name"`              // FileDescriptorName= of a socket unit
	Network string `json:"network,omitempty"` // tcp, udp, unix, ...: what it asked for; none: any descriptor
}
