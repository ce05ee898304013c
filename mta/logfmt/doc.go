// Package logfmt prints log records in the format of MeTA1's README, section
// 10.4: named fields separated by a comma and a space.
//
//	2026-11-20T12:00:00.123Z sev=INFO, module=smtps, event=mail accepted, ss_se=S00..., mail=<a@b.c>
//
// It is a slog.Handler, so the modules use log/slog alone. Several handlers, one
// a module, share one Sink: a Writer for a file or stderr, or a Syslog.
//
// # Values
//
// In a value a comma, a percent sign and every byte that is not printable stand
// as a percent sign and two hexadecimal digits, whatever their source, so that
// a line always splits at its commas. A character beyond ASCII stays as it is if it
// is printable (unicode.IsPrint) and valid UTF-8; otherwise each of its bytes is
// shown in hexadecimal. A value longer than 1,024 bytes is cut and ends in
// "...". Times are printed as RFC 3339 in UTC, durations as seconds.
//
// # Severities
//
// DEBUG, INFO, NOTICE, WARN, ERR and FATAL; the regular check of README 4.10 finds
// the last two.
package logfmt
