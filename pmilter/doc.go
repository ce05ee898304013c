// Package pmilter is for writing policy milters: programs that a MeTA1 SMTP server asks what
// becomes of a client, a sender, a recipient and a message (README 5 and 15).
//
//	g, err := pmilter.New(pmilter.Pmilter{
//		Name: "no-friday",
//		Mail: func(s *pmilter.Session, from string, args []string) pmilter.Code {
//			if time.Now().Weekday() == time.Friday {
//				_ = s.SetReply("451 4.7.1 Not today\r\n")
//				return 451
//			}
//			return pmilter.Continue
//		},
//	})
//	if err == nil {
//		err = errors.Join(g.SetConn("/run/meta1/friday.sock"), g.Start(ctx))
//	}
//
// There are three contexts (README 15.1.1): Global for the program, Server for one SMTP server
// that has connected, Session for one SMTP session. Each keeps a value of the program.
//
// The package also has the codec of the wire form, which docs/pmilter.md describes: the SMTP
// server's side uses it, too. It is a form of our own. MeTA1's was never published, so
// programs that are linked with the C library libpmilter cannot connect.
//
// # Bounds
//
// A frame has FrameMax bytes at most and memory grows with what comes, not with what is
// announced. A server may have SessionsMax sessions on a connection, each with one command
// that waits for its answer. A program may ask for ChangesMax changes of a message, of
// ChangeBytesMax bytes in all, its replacement not counted.
package pmilter
