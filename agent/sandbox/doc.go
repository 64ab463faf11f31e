// Package sandbox builds one sandbox and runs commands in it: namespaces, the mount view composed from the policy,
// ids, cgroup limits, Landlock, seccomp, a tiny init, standard streams.
//
// It owns everything of a sandbox that is fixed when it starts. A rule of the policy is enforced or Prepare fails and
// names the rule, the reason and the remedy. What it makes lives in namespaces, in one cgroup per hierarchy and in one
// run directory, and is gone after Close, or after the Sweep of the next start when the owner was killed.
//
// It never judges a connection or an exec (the loader's programs do), never talks to the network, never writes a log:
// what it has to say it returns as errors, warnings and callbacks. It knows neither loader nor dnsproxy; package agent
// joins them.
//
// The order is design.md's: as host root network, mount, ipc and uts namespaces and all mounts, then PID 1 in its pid
// and cgroup namespace, the user namespace last, then no capabilities, Landlock, seccomp. The init (directory init) is
// freestanding C because PID 1 has to be single-threaded to enter a user namespace, and to start in microseconds.
package sandbox

//go:generate sh init/build
