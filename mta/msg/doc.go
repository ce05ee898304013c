// Package msg holds every message that crosses a boundary between the modules,
// and the ports that carry them. It is data only, with the forms in which data is
// stored and written: no decisions, no I/O.
//
//	port     from -> to           question     answer
//	Admit    server -> queue      AdmitQ       AdmitA: an id, or a 4xx reply
//	Commit   server -> queue      CommitQ      CommitA: durable, or a 4xx reply
//	Check    server -> resolver   CheckQ       Verdict
//	Route    queue -> resolver    RouteQ       RouteA: hops, or expansion, or a reply
//	TLSA     client -> resolver   TLSAQ        TLSAA: records, or none, or a 4xx reply
//	Deliver  queue -> client      DeliverQ     DeliverA: a reply per recipient
//	List     mta -> queue         ListQ        ListA: entries of the queue
//	Operate  mta -> queue         OperateQ     OperateA: how many recipients it was done to
//	Fsck     mta -> queue         FsckQ        FsckA: what a check of a part of the databases found
//	Backup   mta -> queue         BackupQ      BackupA: a copy of the databases, made while QMGR works
//	Status   mta -> each module   StatusQ      StatusA: a snapshot
package msg
