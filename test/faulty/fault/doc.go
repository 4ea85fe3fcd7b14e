// Package fault has a service go wrong at a chosen moment, in a chosen way: the bad
// versions that the end-to-end tests install.
//
// A [Plan] says what, and when. It is part of the version: [Plan.Attach] writes it
// behind the end of the executable, where ELF does not mind it, and the process
// reads it from there ([Own]). So two versions are two files, with digests of their
// own, and a version that is run again, from a file that was deleted meanwhile, does
// what it did.
//
// The service calls an [Injector] on its way:
//
//	in := fault.New(plan)
//	in.Reach(fault.Init)
//	up, err := upgrade.New(…)
//	in.Reach(fault.Started)
//	ln, err := up.Listen(…)
//	in.Reach(fault.Listening)
//	srv := &http.Server{Handler: in.Handler(mux), ConnContext: in.ConnContext}
//	up.Serve(ln, upgrade.HTTP(srv))
//	in.Reach(fault.Ready)
//	stop := in.Watch(up, ln)
//	defer stop()
//	err = up.Run(ctx)
package fault
