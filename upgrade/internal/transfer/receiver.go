package transfer

import (
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"github.com/hdctl/handoff/upgrade/internal/link"
)

// Adoption is a connection that an adopt function has prepared, and that is not
// decided yet. Exactly one of the methods is called, once, by the goroutine that
// called adopt. Neither can fail, and neither may call the Receiver's Close.
type Adoption interface {
	// Commit begins to serve the connection: it is ours, and nobody else's.
	// Nothing of it has been read yet.
	Commit()

	// Abort drops our copy of the connection, with close(2) and nothing that
	// the client could notice: it is the sender's.
	Abort()
}

// Receiver adopts connections.
type Receiver struct {
	conn     *link.Conn
	adopt    func(o link.Offer, files []*os.File) (Adoption, error)
	refusing atomic.Pointer[Refused]
	deciding sync.RWMutex // held for reading from the look at refusing until Commit or Abort
	done     chan struct{}
}

// Receive begins to adopt what is offered over conn, which is used for nothing
// else, and of which it takes ownership. It has so many workers, each of which
// deals with one offer at a time:
//
// It calls adopt, which makes of files[0] what will serve the connection, and
// prepares all that can fail, without reading or writing a byte: the sender may
// still go on. The files are lent; they are closed when adopt has returned
// ([net.FileConn] makes a duplicate, which is what adopt keeps). files[1] is
// there if o.Session.File is set.
//
// An error of adopt refuses the connection: a [*Refused] with its code, EMFILE and
// ENFILE with [CodeFiles], and others with [CodeError]. Before, adopt has closed
// what it had made. Without an error the answer is sent, and either Commit or Abort
// called, as the answer could be sent or not.
//
// An offer whose descriptors could not be received, because this process has no
// numbers for them, is refused with [CodeFiles], and adopt does not hear of it.
//
// It ends by itself when the sender withdraws, or closes its end; but if the
// sender is dead, and a third process has a copy of its end open, only by Close.
func Receive(conn *link.Conn, workers int, adopt func(o link.Offer, files []*os.File) (Adoption, error)) *Receiver {
	r := &Receiver{conn: conn, adopt: adopt, done: make(chan struct{})}
	var all sync.WaitGroup
	for range workers {
		all.Go(r.work)
	}
	go func() {
		all.Wait()
		_ = conn.Close()
		close(r.done)
	}()
	return r
}

// Refuse refuses all further offers with this code and message: of a process that
// begins to drain itself. What a worker is dealing with may still be adopted;
// Settle waits for that. A later call changes code and message.
func (r *Receiver) Refuse(code, message string) {
	r.refusing.Store(&Refused{Code: code, Message: message})
}

// Settle waits, after Refuse, until what was being adopted is committed, or is not
// ours. It waits for adopt, and for the sender where the link is full.
func (r *Receiver) Settle() {
	r.deciding.Lock()
	defer r.deciding.Unlock() // nothing is guarded: it was a wait
}

// Done is closed when the link is over: nothing will be adopted any more, no
// worker runs, and all of the sender's offers are decided.
func (r *Receiver) Done() <-chan struct{} { return r.done }

// Close ends the link, and waits until no worker runs. What was not answered is
// the sender's. It returns nil; further calls do nothing but wait.
func (r *Receiver) Close() error {
	_ = r.conn.Close()
	<-r.done
	return nil
}

func (r *Receiver) work() {
	for {
		err := r.next()
		switch {
		case err == nil:
			continue
		case !errors.Is(err, io.EOF):
			// No answer comes through, so nothing can be adopted. The others
			// must not wait for further offers.
			_ = r.conn.Close()
		}
		return
	}
}

// next deals with one message. An error means that the link is over.
func (r *Receiver) next() error {
	m, files, err := r.conn.Receive()
	var frame *link.FrameError
	switch {
	case err == nil:
	case errors.As(err, &frame):
		if o, ok := frame.Message.(link.Offer); ok {
			return r.refuse(o.ID, &Refused{Code: CodeFiles, Message: frame.Error()})
		}
		return nil
	default:
		return err
	}

	switch m := m.(type) {
	case link.Offer:
		return r.offered(m, files)
	case link.Unknown:
		if m.Unanswered { // files has none
			return r.conn.SendWait(link.Unknown{Name: m.Name})
		}
	}
	closeFiles(files)
	return nil
}

func (r *Receiver) offered(o link.Offer, files []*os.File) error {
	r.deciding.RLock()
	defer r.deciding.RUnlock()
	if no := r.refusing.Load(); no != nil {
		closeFiles(files)
		return r.refuse(o.ID, no)
	}
	adoption, err := r.adopt(o, files)
	closeFiles(files) // before the answer: who is refused finds no copy of its connection here
	if err != nil {
		return r.refuse(o.ID, err)
	}
	if err := r.conn.SendWait(link.Answer{ID: o.ID}); err != nil {
		adoption.Abort()
		return err
	}
	adoption.Commit()
	return nil
}

func (r *Receiver) refuse(id uint64, reason error) error {
	no := refusal(reason)
	return r.conn.SendWait(link.Answer{ID: id, Code: no.Code, Message: no.Message})
}
