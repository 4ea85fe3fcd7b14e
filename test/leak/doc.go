// Package leak finds goroutines and file descriptors that tests leave behind.
//
// A library that hands file descriptors from process to process has one typical
// mistake: a descriptor that nobody owns. Every package of this module that
// touches one has a TestMain that ends like this:
//
//	func TestMain(m *testing.M) {
//		if os.Getenv("APP_TEST_CHILD") != "" {
//			child() // does not return
//		}
//		leak.Main(m)
//	}
//
// and the test run fails, with a listing, when a goroutine or a descriptor is
// left after the last test. To find the guilty test, put [Check] in its first
// line:
//
//	func TestListen(t *testing.T) {
//		leak.Check(t)
//		…
//	}
//
// # What counts
//
// Goroutines are counted by go.uber.org/goleak. A descriptor counts if its
// number was not open before, or refers to something else than before. Both get
// a few seconds to disappear, because a connection that was just closed, or a
// process that was just reaped, needs a moment.
//
// Not counted are /dev/null and the one epoll instance and the one eventfd that
// the runtime's network poller opens with the first socket. An [os.File] or a
// [net.Conn] that is forgotten, but unreachable, is closed by the garbage
// collector during the check, and so not counted either; a raw descriptor has
// no such second chance.
//
// # Other processes
//
// [OfPID] lists the descriptors of another process: a test that wants to know
// whether a service accumulates descriptors compares two of these lists.
package leak
