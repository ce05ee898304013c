// Package trial has both ends of a trial: a Sink, which takes mail and answers as rules say,
// and a Source, which sends it. They are the commands "meta1 sink" and "meta1 source".
//
// They are for trials alone: a sink takes mail from anybody and forgets it, and its TLS
// certificate is made up. Nothing here is part of the MTA.
package trial
