// Package lda is a small delivery agent: an LMTP server (RFC 2033) that puts each
// message into the Maildir ROOT/USER of its recipient. It is the logic of meta1 lda,
// and knows nothing of the queue.
//
// # What is on disk
//
// A message is in one of three states:
//
//   - tmp: ROOT/USER/tmp/NAME exists, perhaps in part. Nothing was promised; what a
//     crash leaves there may be removed by anybody after 36 hours, as is usual with
//     Maildirs.
//   - new, not synced: the file was synced and then renamed to ROOT/USER/new/NAME. It is
//     complete whenever its name is there, but a crash may take the name back to tmp.
//   - new: the directory new was synced too. Only then the recipient's reply is 250.
//
// NAME never repeats on this host (time, process, counter). Content is kept with LF
// line ends, as Maildirs have it; below the header fields Return-Path and Delivered-To
// of the agent it is the content that was sent.
//
// # Why the session is our own
//
// emersion/go-smtp (0.25.1) has an LMTP server, but mail that this agent takes would not
// get through it: content that ends in CR CR LF has no end for it and is bounced after a
// timeout, a line of more than MaxLineLength, which bounds commands and content alike, ends
// the session, a line that begins with a dot and CR loses both, and the sender is handed on
// unquoted. TestLargeMessages holds the agent to the first three. emersion/go-maildir
// does not sync, which comes before every 250 here.
package lda
