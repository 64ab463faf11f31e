//go:build e2e

package attacks

import "fmt"

func networkPlanes() []*plane {
	const literal, unspecific = "network {other4}:7000", "EAFNOSUPPORT"
	addresses := []attempt{
		{name: "TCP to an address", user: true, do: "say {other4} 7000 {say}", inside: "EPERM", record: literal, harm: toOther, setup: spoken},
		{name: "TCP to an IPv6 address", user: true, do: "tcp {other6} 7000", inside: "EPERM", record: "network [{other6}]:7000"},
		{name: "TCP to `::ffff:a.b.c.d`", user: true, do: "tcp ::ffff:{other4} 7000", inside: "EPERM", record: literal},
		{name: "TCP to a name that no rule names", user: true, do: "say " + otherName + " 7000 {say}", inside: "EPERM", record: "network " + otherName + ":7000", harm: toOther, setup: spoken},
		{name: "TCP to another port of an allowed name", user: true, do: "tcp-to " + okName + " 7001", inside: "EPERM", record: "network " + okName + ":7001"},
		{name: "cloud metadata (169.254.169.254)", user: true, do: "told metadata 169.254.169.254 80 " + request("GET / HTTP/1.0"), inside: "EPERM", record: "network 169.254.169.254:80"},
		{name: "a private network", user: true, do: "tcp {private} {localport}", inside: "EPERM", record: "network {private}:{localport}"},
		{name: "the host's loopback", user: true, do: "say 127.0.0.1 {localport} {say}", inside: "ECONNREFUSED", harm: toLocal, setup: spoken},
		{name: "address as one decimal number", user: true, do: "run /usr/bin/python3 {ws}/connect.py {decimal} 7000", inside: "PermissionError", record: literal},
		{name: "address as one hexadecimal number", user: true, do: "run /usr/bin/python3 {ws}/connect.py {hex} 7000", inside: "PermissionError", record: literal},
		{name: "address in octal", user: true, do: "run /usr/bin/python3 {ws}/connect.py {octal} 7000", inside: "PermissionError", record: literal},
		{name: "address with three parts", user: true, do: "run /usr/bin/python3 {ws}/connect.py {short} 7000", inside: "PermissionError", record: literal},
		{name: "data in the SYN (`MSG_FASTOPEN`)", user: true, do: "fastopen {other4} 7000", inside: "EPERM", record: literal},
		{name: "a socket that was allowed, dissolved and connected again", user: true, do: "again " + okName + " 7000 {other4} 7000", inside: "EPERM", record: literal},
		{name: "UDP", user: true, do: "udp {other4} 9", inside: "EPERM", record: "network {other4}:9"},
		{name: "UDP on a connected socket", user: true, do: "udpconn {other4} 9", inside: "EPERM", record: "network {other4}:9"},
		{name: "what another program may connect to", user: true, do: "tcp-to " + okName + " 7010", inside: "EPERM", record: "network " + okName + ":7010"},
		{name: "what a rule that has expired allowed", user: true, do: "sleep 1200ms && tcp-to " + okName + " 7011", inside: "EPERM", record: "network " + okName + ":7011"},
		{name: "serving at an address of the host's", user: true, do: "listen 0.0.0.0 7443 && listen {other4} 7443", inside: "EPERM", record: "network {other4}:7443"},
		{name: "seeing the host's sockets (`/proc/net/tcp`)", user: true, do: "find :{localhex} /proc/net/tcp", inside: "not there"},
		{name: "another address for lo (rtnetlink)", do: "address", inside: "EPERM"},
		{name: "a tunnel device", do: "open rw /dev/net/tun", inside: "ENOENT"},
	}
	sockets := []attempt{
		{name: "ICMP on a raw socket", do: "echo {other4}", inside: "EPERM"},
		{name: "raw IPv6 socket", do: "socket 10 3 58", inside: "EPERM"},
		{name: "packet socket", do: "frame", inside: unspecific},
		{name: "AF_VSOCK", user: true, do: "socket 40 1 0", inside: unspecific},
		{name: "AF_XDP", do: "socket 44 3 0", inside: unspecific},
		{name: "MPTCP", user: true, do: "multipath {other4} 7000", inside: "EPROTONOSUPPORT"},
		{name: "UDP-Lite", user: true, do: "udplite {other4} 9", inside: "EPROTONOSUPPORT"},
		{name: "a record in the host's audit log (netlink audit)", do: "forge op=probe", inside: "EPROTONOSUPPORT"},
		{name: "netlink: netfilter", user: true, do: "socket 16 3 12", inside: "EPROTONOSUPPORT"},
		{name: "netlink: generic", user: true, do: "socket 16 3 16", inside: "EPROTONOSUPPORT"},
		{name: "netlink: socket diagnosis", user: true, do: "socket 16 3 4", inside: "EPROTONOSUPPORT"},
		{name: "netlink: device events", user: true, do: "socket 16 3 15", inside: "EPROTONOSUPPORT"},
		{name: "netlink: IPsec", user: true, do: "socket 16 3 6", inside: "EPROTONOSUPPORT"},
		{name: "`SO_MARK`", do: "mark", inside: "EPERM"},
		{name: "`SO_PRIORITY` 7", do: "priority", inside: "EPERM"},
		{name: "`SO_RCVBUFFORCE`", do: "buffer", inside: "EPERM"},
		{name: "`IP_TRANSPARENT`", do: "transparent", inside: "EPERM"},
		{name: "`TCP_REPAIR`", do: "repair", inside: "EPERM"},
		{name: "`SO_BINDTODEVICE`", do: "by-device up0 {other4} 9", inside: "ENODEV"},
		{name: "unix socket of the host", user: true, do: "cd {out} && unix sock", inside: "ENOENT", harm: leaked, setup: socketIn(inOut, greet)},
		{name: "abstract unix socket of the host", user: true, do: "unix {abstract}", inside: "ECONNREFUSED", harm: leaked, setup: abstract},
		{name: "a descriptor from a unix socket of the host", user: true, do: "cd {out} && received sock", inside: "ENOENT", harm: leaked, setup: socketIn(inOut, give)},
		{name: "unix socket of the host in the workspace", user: true, do: "unix sock", harm: leaked, setup: socketIn(inWorkspace, greet),
			open: "before Landlock ABI 9 nothing tells a socket of the host from one that was made inside; level full can", full: "EACCES"},
		{name: "a descriptor from a unix socket of the host in the workspace", user: true, do: "received sock", harm: leaked, setup: socketIn(inWorkspace, give), open: "likewise", full: "EACCES"},
		{name: "a datagram to a unix socket of the host in the workspace", user: true, do: "post sock {token}", harm: delivered, setup: mailbox, open: "likewise", full: "EACCES"},
	}
	const proxy = "{proxy} 3128 "
	names := []attempt{
		{name: "another server name than the address was given for", user: true, do: "tls " + okName + " 443 " + otherName, inside: "tls: unrecognized name", record: "network " + okName + ":443"},
		{name: "no server name", user: true, do: "tls " + okName + " 443 -", inside: "tls: unrecognized name", record: "network " + okName + ":443"},
		{name: "another server name, cut into many segments", user: true, do: "tls-cut " + okName + " 443 " + otherName + " 20", inside: "tls: unrecognized name", record: "network " + okName + ":443"},
		{name: "another server name, cut into many records", user: true, do: "tls-rec " + okName + " 443 " + otherName + " 20", inside: "tls: error decoding message", record: "network " + okName + ":443"},
		{name: "encrypted ClientHello", user: true, do: "ech " + okName + " 4443 inner.net.attacks.test {ech}", inside: "tls: access denied", record: "network " + okName + ":4443"},
		{name: "another protocol on an https port", user: true, do: "reach " + okName + " 8443 {say}", inside: "", note: "a TLS alert", record: "network " + okName + ":8443", harm: toSSH, setup: spoken},
		{name: "another `Host`", user: true, do: "told hello " + okName + " 80 " + request("GET / HTTP/1.0", "Host: "+otherName), inside: "403", record: "network " + okName + ":80"},
		{name: "another `Host` in the second request", user: true, do: "told from-" + otherName + " " + okName + " 80 " + request("GET / HTTP/1.1", "Host: "+okName, "", "GET / HTTP/1.1", "Host: "+otherName, "Connection: close"),
			inside: "another answer", record: "network " + okName + ":80"},
		{name: "a request hidden in another's body (CL and TE)", user: true, do: "told hello " + okName + " 81 " + request("POST / HTTP/1.1", "Host: "+okName, "Content-Length: 4", "Transfer-Encoding: chunked", "", "0", "", "GET /evil HTTP/1.1", "Host: "+otherName),
			inside: "400", record: "network " + okName + ":81"},
		{name: "redirect to cloud metadata", user: true, do: "follow http://" + okName + "/to-metadata metadata", inside: "EPERM", record: "network 169.254.169.254:80"},
		{name: "redirect to a name that no rule names", user: true, do: "follow http://" + okName + "/to-other hello", inside: "EPERM", record: "network " + otherName + ":80"},
		{name: "CONNECT through the proxy to a name that no rule names", user: true, do: "told 200 " + proxy + request("CONNECT "+otherName+":443 HTTP/1.1", "Host: "+otherName), inside: "403", record: "network " + otherName + ":443"},
		{name: "CONNECT through the proxy to an address", user: true, do: "told 200 " + proxy + request("CONNECT 169.254.169.254:80 HTTP/1.1", "Host: 169.254.169.254:80"), inside: "403", record: "network 169.254.169.254:80"},
		{name: "CONNECT through the proxy to the host's loopback", user: true, do: "told 200 " + proxy + request(fmt.Sprintf("CONNECT 127.0.0.1:%d HTTP/1.1", localPort), fmt.Sprintf("Host: 127.0.0.1:%d", localPort)), inside: "403", record: "network 127.0.0.1:{localport}"},
		{name: "a name that leads to the host's loopback later on (rebinding)", user: true, do: "lookup " + rebindName + " && sleep 5300ms && reach " + rebindName + " {localport} {say}", inside: "ECONNRESET", record: "network " + rebindName + ":{localport}", harm: toLocal,
			setup: func(s *scene) { spoken(s); internet.rebound.Store(0) }},
		{name: "a name that leads to the host's loopback as well", user: true, do: "reach " + mixedName + " {localport} {say}", inside: "ECONNRESET", harm: toLocal, setup: spoken},
		{name: "domain fronting: another `Host` inside TLS", user: true, do: "fronted " + frontName + " 443 " + otherName + " from-" + otherName,
			open: "what is inside TLS can't be seen; only inspection of TLS would stop it, which no level has. Name hosts that serve nobody else"},
	}
	trust := []string{"SSL_CERT_FILE={ws}/ca.pem"}
	return []*plane{
		{name: "network: addresses", table: addresses, host: hosts, commands: "    - {command: python3}\n",
			allow: okRules + "    - {domain: " + okName + ", ports: [7010], protocol: tcp, commands: [python3]}\n    - {domain: " + okName + ", ports: [7011], protocol: tcp, expires: 1s}\n"},
		{name: "network: sockets", table: sockets, host: hosts, allow: okRules},
		{name: "network: names", table: names, host: hosts, env: trust, allow: okRules},
	}
}

const okRules = "    - {domain: " + okName + ", ports: [7000], protocol: tcp}\n    - {domain: " + okName + ", ports: [443, 4443, 8443], protocol: https}\n" +
	"    - {domain: " + mixedName + ", ports: [4432], protocol: tcp}\n    - {domain: " + okName + ", ports: [80, 81], protocol: http}\n    - {domain: " + frontName + ", ports: [443], protocol: https}\n    - {domain: " + rebindName + ", ports: [4432], protocol: tcp}\n"
