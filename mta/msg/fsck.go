package msg

import "time"

// FsckQ asks QMGR to check a part of its databases while it works, from a cursor on.
type FsckQ struct {
	Cursor  string // of the last answer; "" begins
	Content bool   // read all content and compare its checksums
}

// FsckA answers FsckQ.
type FsckA struct {
	Findings []Finding
	Cursor   string // ask again with it; "" at the end
	Examined uint64 // records and files so far
	Err      string // why it ended early; "" if it did not
}

// Finding is one thing that a check of the databases found. Package queue/fsck says
// what the members mean.
type Finding struct {
	Severity, Code, TA, RcptID, Path, Text, Repair string
}

// FsckTime bounds the time of one answer to FsckQ.
const FsckTime = 2 * time.Minute
