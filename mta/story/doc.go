// Package story tells what is known of one message: who brought it and as whom, each attempt, each host that
// keeps it, why it waits and when it is tried next. It is the one place that does: meta1 explain ID, the control
// API (GET /messages/ID) and the web console all show what Tell gives, and differ only in what they print it on.
//
// What waits comes from the queue, what is past from the log; Sources says how to ask for them, so that a story
// can be told beside a meta1 that does not run. What cannot be asked becomes a note.
package story
