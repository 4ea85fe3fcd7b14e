package pidfile

// Take is Remove after it has read the file and found pid there.
func Take(path string, pid int) error {
	p, err := find(path)
	if err != nil {
		return err
	}
	defer p.close()
	return p.take(pid)
}
