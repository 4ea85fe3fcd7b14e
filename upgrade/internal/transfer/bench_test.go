package transfer_test

import (
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/internal/link"
	"github.com/hdctl/handoff/upgrade/internal/transfer"
)

// benchmarkGive gives connections, over and over again the same ones.
func benchmarkGive(b *testing.B, s *sender, window int) {
	clients := dialAll(b, window)
	b.ReportAllocs()
	b.ResetTimer()
	var all sync.WaitGroup
	for i, c := range clients {
		all.Go(func() {
			for range (b.N + window - 1 - i) / window {
				err := s.Give(c.ours, link.Offer{Listener: "http", Accepted: 1_700_000_000_000_000_000, In: 1234, Out: 56789})
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	b.StopTimer()
}

const benchWindow = 32

// Both sides in this process: the receiver makes a net.Conn, and closes it.
func BenchmarkGive(b *testing.B) {
	conn, peer := connect(b)
	s := newSender(conn, benchWindow)
	r := transfer.Receive(peer, 4, func(_ link.Offer, files []*os.File) (transfer.Adoption, error) {
		c, err := net.FileConn(files[0])
		return closing{c}, err
	})
	before := cpu(b)
	benchmarkGive(b, s, benchWindow)
	b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
	require.NoError(b, s.Close())
	<-r.Done()
}

// The receiver in a process of its own, with the CPU time of each side. The
// receiver's includes the start of the process.
func BenchmarkGiveToProcess(b *testing.B) {
	p, s := start(b, dropping, benchWindow)
	require.NoError(b, p.far.Close())
	p.await(1) // it is ready
	before := cpu(b)
	benchmarkGive(b, s, benchWindow)
	b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N), "sender-cpu-µs/op")
	require.NoError(b, s.Close())
	p.await(all)
	p.end(b)
	state := p.cmd.ProcessState
	b.ReportMetric(float64((state.UserTime()+state.SystemTime()).Microseconds())/float64(b.N), "receiver-cpu-µs/op")
}

func cpu(b *testing.B) time.Duration {
	var usage syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

type closing struct{ net.Conn }

func (c closing) Commit() { c.Close() }
func (c closing) Abort()  { c.Close() }
