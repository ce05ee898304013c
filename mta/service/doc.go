// Package service does the work of MeTA1's MCP that is like inetd's: it starts the
// programs of service sections and watches over them (README 3.7). A service is
// any section of the configuration that is not a module of meta1, for example an
// LMTP delivery agent.
//
//	start_action   the program is started         and gets
//	accept         for each connection            the connected socket as descriptors 0 and 1
//	nostartaccept  when the first connection      the listening socket as descriptor 0
//	               waits; again when it ended
//	pass           at once; again when it ended   the listening sockets over pass_fd_socket
//	wait           at once; again when it ended   no socket
//
// Programs run in process groups of their own, so that a signal from the terminal
// reaches meta1 alone, which stops them in order: TERM to the group, KILL after a
// grace. On Linux and FreeBSD they are killed when meta1 dies (parent death signal).
// What they print goes to meta1's standard error.
//
// A program runs under the account of the section's user and group. Only root can
// see to that, and meta1 has dropped root's privileges by then. So a Monitor, a small
// process of the same binary, stays root and starts programs on request: only
// those of the table that it got before the privileges were dropped.
//
// The new process of an upgrade is a program, too (Program.Successor): the monitor starts it, if there is one, so
// that it begins with the rights that this one began with.
//
// The monitor also reads files for meta1 that only root may read: private keys, when
// they are renewed. Which ones, the function says that it is given; see [ReadFunc].
package service
