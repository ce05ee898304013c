// Package dryrun tries mail with a whole configuration: what the sections smtps would answer, by which option or entry of a
// map, and what would become of the recipients. It asks real modules, those that run or those of a configuration file, and
// leaves no trace: nothing is queued, greylisting forgets the client, and no filter is asked. It also finds
// what makes a reply, and of which mail two configurations make something different.
package dryrun
