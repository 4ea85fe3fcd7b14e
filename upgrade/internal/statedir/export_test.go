package statedir

import (
	"encoding/json"
	"io"
	"time"
)

// Small files, and little patience, for tests.
func (d *Dir) SetMaxHistory(bytes int64)   { d.maxHistory = bytes }
func (d *Dir) SetPatience(p time.Duration) { d.patience = p }
func (d *Dir) Hold() (release func(), e error) {
	dir, err := d.open()
	if err != nil {
		return nil, err
	}
	return dir.close, dir.lock()
}

const MaxHistory = maxHistory

// ReadLines is Records of one file.
func ReadLines(src io.ReaderAt, size, most int64, limit int) ([]json.RawMessage, error) {
	return appendRecords(nil, newLineReader(src, size, most), limit)
}
