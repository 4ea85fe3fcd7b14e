// Package pulse is a page of memory that two generations of a service share, in
// which one counts what it does and the other looks on.
//
// A page answers two questions about a process, without asking that process,
// which may be in no state to answer: does it accept the connections that
// clients make (see [Slot]), and how well does it serve them (see
// [Page.Observe] and [Page.Sample])?
//
//	page, err := pulse.New()     // the predecessor makes the page,
//	send(page.File())            // passes it on,
//	before := page.Sample()      // and reads
//
//	page, err := pulse.Open(f)   // the successor maps the same page,
//	slot := page.Slot(0)
//	conn, err := ln.Accept()
//	slot.Accepted()              // and counts in it
//
// Whoever counts pays for a few atomic additions in memory that is its own: no
// system call, no lock, and nothing that the other process could hold up.
//
// # Trust
//
// The other process runs another version of the program, and is watched because
// that version may be broken. It can do nothing to the page that makes an access
// fault: the page is a memfd_create(2) that is sealed against shrinking, growing
// and further seals, and was given its memory when it was made, and Open refuses
// everything else. What is *in* the page is a different matter: a counter may be
// anything, and may go backwards. All methods that read make sense of any
// content, and [Sample.Minus] saturates.
//
// # Ownership of file descriptors
//
// A Page made by New owns the descriptor behind [Page.File] until Close. Open
// borrows a file for as long as it runs. The mapping is not tied to a descriptor;
// it goes when the page is closed and nobody uses it any more.
//
// # Errors
//
// New and Open return the errors of system calls as [os.SyscallError]. A file
// that is no page is an error that says in which way; nothing is there to branch
// on, because there is nothing else to do than to go without.
package pulse
