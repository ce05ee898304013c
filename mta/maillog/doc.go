// Package maillog reads logs of meta1, and finds the lines of one message in them.
//
// A line is one of README 10.4, with what syslog has put in front, a JSON object of the same
// fields, or an object of journalctl -o json with either as its message. What is none of these
// is passed over. A line longer than lineMax is, too.
//
// A Story follows a message: its own lines, which have its transaction (ss_ta) or one of its
// recipients (rcpt_id), and those of the sessions that it came and went by (ss_se, da_se), which
// come before it is known that they matter. So a Story keeps the last pendingMax lines.
package maillog
