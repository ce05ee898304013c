// Package maildrop is the directory in which local programs leave mail for a meta1 that does not run or takes none
// for now (meta1 sendmail), and what takes it up.
//
// # The directory
//
// It belongs to the account that serves, has its group, and the mode 3733: everybody may make files in it, nobody
// but the account may list it, nobody may remove or rename what belongs to another (sticky), and what is made
// belongs to who made it and to the group of the directory (set-gid), so that the account can read it and
// others cannot. No program needs any right that its caller does not have. With AccessGroup the mode is
// 3730: only root and members of the group may leave mail.
//
// # States of a message
//
//   - new.NAME is being written. One that has not been touched for a day is removed.
//   - mail.NAME is whole, synced, and is taken up.
//   - mail.NAME was accepted by QMGR and is removed next. If meta1 ends between the two, it is taken up again: a
//     message may so be sent twice, and is never lost.
//   - bad.NAME was not a message, or the queue refused it for good. It is kept for a week for the postmaster.
//
// # Distrust
//
// Anything can be in the directory. A file is opened without following a link and without waiting for a pipe, must be a
// regular file with one name and no larger than SizeMax, and is read whole before it is looked at. Its owner is whom
// the kernel says. Its envelope is parsed as that of a stranger, and a checksum says whether it is whole. Other
// things than files are removed. However many entries there are, few of their names
// and one message are in memory.
package maildrop
