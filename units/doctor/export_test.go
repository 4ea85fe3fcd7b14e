package doctor

// WithLabel returns s with another way to get SELinux labels.
func (s System) WithLabel(label func(string) (string, error)) System {
	s.label = label
	return s
}

// Older is older.
var Older = older
