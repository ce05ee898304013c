// Package whatif compares what two configurations make of the same mail.
//
// Envelopes gathers the dialogues that clients have had, from a log, or reads them from a file of
// questions; mta tries each with both configurations (mta/explain); Compare names what differs
// in the two reports: the verdict, the reply, where the mail goes, what TLS must give, limits.
package whatif
