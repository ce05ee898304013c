// Package access decides who may use the control API: at the Unix socket by the account of the
// process at the other end, over TCP by a token or by a certificate. It reads nothing of a request
// but its header, and changes nothing.
package access
