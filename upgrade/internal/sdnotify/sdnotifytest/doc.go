// Package sdnotifytest plays systemd's side of sd_notify(3) in tests.
//
//	systemd := sdnotifytest.New(t)
//	start(systemd.Address()) // what NOTIFY_SOCKET would be
//	d, err := systemd.Next(t.Context())
//	require.NoError(t, err)
//	assert.Equal(t, []string{"READY=1"}, d.Lines)
//	assert.Equal(t, pid, d.PID)
//
// A [Recorder] writes down every datagram and who sent it, in the order of their
// arrival, whoever is allowed to speak: unlike systemd it knows no NotifyAccess=.
// It answers barriers at once, later or never ([Recorder.HoldBarriers]).
package sdnotifytest
