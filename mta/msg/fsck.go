package msg

import (
	"time"

	"meta1/mta/copies"
)

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

// BackupQ asks QMGR for a copy of its databases as they are at one moment, while it works.
type BackupQ struct {
	Dir string // an empty directory that nobody else can write, absolute
	// Copy is ended by who asks, or by QMGR when it stops. The answer comes then, too, and nothing is written to Dir any more.
	Copy *copies.Copy
}

// BackupA answers BackupQ.
type BackupA struct {
	Contents int    // content files
	Err      string // why the copy is not whole and must not be used; "" if it is
}

// FsckTime bounds the time of one answer to FsckQ.
const FsckTime = 2 * time.Minute
