// Package dnsproxy is a sandbox's only way to the network: it answers DNS inside the sandbox's network namespace and
// carries TCP out of it, under the names, ports, protocols and commands of a policy.
//
// It owns
//   - the address book: each name gets one synthetic IPv4 and one synthetic IPv6 address, never reused in a sandbox's life;
//   - the DNS server, which answers with those addresses from memory and asks upstream for allowed names only;
//   - the transparent TCP proxy, which reads the wanted address from the accepted socket's own local address, checks the
//     TLS ClientHello's SNI or the Host of each HTTP request, resolves the name itself, refuses inward addresses and dials
//     the very address it checked;
//   - the explicit proxy (CONNECT and absolute URIs) for clients that insist on one; the same checks apply to what is inside.
//
// It never terminates TLS, never rewrites a body, never asks upstream about a name that is not allowed, never decides who a
// process is (Config.Identify does, from the kernel) and never writes a log (Config.Record gets every decision). Everything
// that arrives on a socket, from the sandbox or from an upstream, is hostile bytes.
//
// What it can't see: which Host is asked for inside TLS (a name that shares servers with others can lead to those), a second
// ClientHello after a HelloRetryRequest, and what a proxy of the host's own makes of a name. Under a wildcard the label is a
// channel to whoever serves the domain: new names are limited in rate and each is recorded.
//
// Accepted connections live on epoll loops of their own (loop.go), each on a locked thread with raw non-blocking system
// calls: Go's network poller costs about as much per round trip as the bytes do. What may block (asking a person, resolving,
// the host's own proxy) runs in goroutines and posts its result back to the loop.
package dnsproxy
