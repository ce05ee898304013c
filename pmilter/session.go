package pmilter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"meta1/mta/supervise"
)

// queueMax is how many commands of a session may wait: one that has an answer, and those
// that have none.
const queueMax = 8

// Client is the client of an SMTP session.
type Client struct {
	Name string // verified name without its dot, "" for none
	Addr string // IP address, "" for a local client
	Port uint16
}

// Session is the context of one SMTP session (pmse_ctx). It is for the callbacks of that
// session and for nothing else.
type Session struct {
	ss      *Server
	id      uint32
	in      chan Command // closed at the end
	client  Client
	context any
	life    context.Context
	dead    bool // a callback has panicked

	macros  map[Macro]string
	doing   FrameType // the command whose callback runs; 0 for none
	command *Command
	inTx    bool   // Abort is due if the transaction ends
	reply   string // of SetReply
	changes []Frame
	bytes   int    // of changes
	rcpts   uint32 // accepted ones, in EOM
	added   int    // recipients
	deleted map[uint32]bool
}

// Errors of the functions of a session.
var (
	ErrNotEOM    = errors.New("a message is changed in EOM alone")
	ErrNotRcpt   = errors.New("no recipient is being asked about")
	ErrNotAgreed = errors.New("this function was not agreed on")
	ErrMany      = errors.New("too many changes of one message")
	ErrNoMessage = errors.New("a message without recipients: return Discard")
	ErrReplies   = errors.New("there must be one reply for each accepted recipient, 250 or from 400 to 599")
	ErrNotAsked  = errors.New("this macro was not asked for")
)

// Server is the context of the SMTP server (sm_pmfi_get_ctx_ss_se).
func (s *Session) Server() *Server { return s.ss }

// SetContext sets a value for the session (sm_pmfi_set_ctx_se).
func (s *Session) SetContext(v any) { s.context = v }

// Context is what SetContext has set (sm_pmfi_get_ctx_se).
func (s *Session) Context() any { return s.context }

// Client is the client.
func (s *Session) Client() Client { return s.client }

// Lifetime ends when the connection to the SMTP server ends. A callback that waits for
// something should end with it.
func (s *Session) Lifetime() context.Context { return s.life }

// Macro is the value of a macro (sm_pmfi_getmac). ok is false if it has none yet, ErrNotAsked
// says that it was asked for at no stage.
func (s *Session) Macro(m Macro) (value string, ok bool, err error) {
	if value, ok = s.macros[m]; ok {
		return value, true, nil
	}
	for _, list := range s.ss.macros {
		for _, asked := range list {
			if asked == m {
				return "", false, nil
			}
		}
	}
	return "", false, fmt.Errorf("%w: %s", ErrNotAsked, m)
}

// RcptIndex is the index of the recipient that Rcpt is asked about (sm_pmfi_getrcpt_idx), for
// RcptDel. Refused recipients have the index that the next one gets.
func (s *Session) RcptIndex() (uint32, error) {
	if s.doing != FrameRcpt {
		return 0, ErrNotRcpt
	}
	return s.command.Index, nil
}

// Status is 250 or why the recipient was refused that Rcpt is asked about (sm_pmfi_getstatus,
// with CapRcptStatus), and the text of that reply.
func (s *Session) Status() (Code, string, error) {
	if s.doing != FrameRcpt {
		return 0, "", ErrNotRcpt
	}
	return Code(s.command.Status), s.command.Reply, nil
}

// Recipients is how many recipients were accepted, in EOM.
func (s *Session) Recipients() int { return int(s.rcpts) }

// SetReply sets the text of a refusal (sm_pmfi_setreply): "XYZ D.S.N text\r\n", or several
// such lines with "XYZ-" in all but the last. The callback must return the code XYZ; with
// another one the text is not used, and the log says so.
func (s *Session) SetReply(reply string) error {
	r, err := ParseReply(reply)
	if err == nil && !Code(r.Code).Refuses() {
		err = fmt.Errorf("%w: %d refuses nothing", ErrReply, r.Code)
	}
	if err != nil {
		return err
	}
	s.reply = reply
	return nil
}

// SetReplies sets a reply for each recipient that was accepted, in their order
// (sm_pmfi_setreplies): 250, or one from 400 to 599 that refuses the message for this
// recipient. It has an effect only if the client has asked for PRDR, which the parameters of Mail
// tell. texts are ignored, as MeTA1 says. It is for EOM.
func (s *Session) SetReplies(codes []int, _ []string) error {
	if s.doing == FrameEOM && len(codes) != int(s.rcpts) || len(codes) > RepliesMax {
		return fmt.Errorf("%w: %d for %d", ErrReplies, len(codes), s.rcpts)
	}
	c := Change{Type: FrameReplies}
	for _, code := range codes {
		if code != int(OK) && (code < 400 || code > 599) {
			return fmt.Errorf("%w: not %d", ErrReplies, code)
		}
		c.Replies = append(c.Replies, Reply{Code: code})
	}
	return s.change(&c)
}

// MailReplace replaces the sender (sm_pmfi_mail_rplc), an address with brackets; args are
// parameters of MAIL, such as "RET=HDRS". MeTA1 took none. It is for EOM.
func (s *Session) MailReplace(addr string, args ...string) error {
	return s.change(&Change{Type: FrameMailReplace, Addr: addr, Args: args})
}

// RcptAdd adds a recipient (sm_pmfi_rcpt_add), an address with brackets; args are parameters
// of RCPT. MeTA1 took none. It is for EOM.
func (s *Session) RcptAdd(addr string, args ...string) error {
	err := s.change(&Change{Type: FrameRcptAdd, Addr: addr, Args: args})
	if err == nil {
		s.added++
	}
	return err
}

// RcptDel removes the recipient with that address and that index (sm_pmfi_rcpt_del). It is for
// EOM. ErrNoMessage: it is the last one.
func (s *Session) RcptDel(addr string, index uint32) error {
	switch {
	case s.doing != FrameEOM:
		return ErrNotEOM
	case index >= s.rcpts:
		return fmt.Errorf("recipient %d of %d", index, s.rcpts)
	case !s.deleted[index] && len(s.deleted)+1 >= int(s.rcpts)+s.added:
		return ErrNoMessage
	}
	err := s.change(&Change{Type: FrameRcptDel, Addr: addr, Index: index})
	if err == nil {
		if s.deleted == nil {
			s.deleted = map[uint32]bool{}
		}
		s.deleted[index] = true
	}
	return err
}

// HeaderMod modifies the header (sm_pmfi_hdr_mod). header is a complete field with CR LF, ""
// for HeaderRemove. It is for EOM. If the message is replaced, too, the positions are those of the
// new one.
func (s *Session) HeaderMod(mod HeaderMod, pos uint, header string) error {
	if err := CheckHeader(mod, header); err != nil {
		return err
	}
	return s.change(&Change{Type: FrameHeader, Mod: mod, Pos: uint32(min(pos, 1<<31)), Header: header})
}

// Hold has the message accepted and held in the queue, with a reason. It is ours, and for EOM.
func (s *Session) Hold(reason string) error {
	return s.change(&Change{Type: FrameHold, Reason: reason})
}

// change keeps a change until EOM has returned.
func (s *Session) change(c *Change) error {
	switch {
	case s.doing != FrameEOM:
		return ErrNotEOM
	case s.ss.agreed.Fct&c.Type.Needs() == 0:
		return ErrNotAgreed
	case len(c.Args) > ArgsMax:
		return fmt.Errorf("%d parameters, but %d may be", len(c.Args), ArgsMax)
	}
	f := Frame{Type: c.Type, Session: s.id, Data: c.Append(nil)}
	if _, err := ParseChange(f); err != nil {
		return err
	}
	if s.bytes += len(f.Data); s.bytes > ChangeBytesMax || len(s.changes) >= ChangesMax {
		return ErrMany
	}
	s.changes = append(s.changes, f)
	return nil
}

// run calls the callbacks of the session, one after the other.
func (s *Session) run(ctx context.Context) error {
	s.life = ctx
	s.ss.debug(1, "session opened", slog.Uint64("session", uint64(s.id)), slog.String("client_ip", s.client.Addr))
	defer s.end()
	for {
		select {
		case k, open := <-s.in:
			if !open {
				return nil
			}
			if err := s.handle(ctx, &k); err != nil {
				return nil //nolint:nilerr // the connection is closed, and whoever reads it says so
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// end is the end of the session.
func (s *Session) end() {
	s.abort()
	if s.ss.g.p.Close != nil && !s.dead {
		s.call(func() { s.ss.g.p.Close(s) })
	}
	s.ss.debug(1, "session closed", slog.Uint64("session", uint64(s.id)))
}

// abort ends a transaction that has not come to its end.
func (s *Session) abort() {
	if s.inTx && s.ss.g.p.Abort != nil && !s.dead {
		s.call(func() { s.ss.g.p.Abort(s) })
	}
	s.inTx = false
}

// call calls a callback; ok is false if it has panicked.
func (s *Session) call(f func()) (ok bool) {
	err := supervise.Call(s.life, func(context.Context) error { f(); return nil })
	if err != nil {
		s.dead = true
		s.ss.g.log.LogAttrs(s.life, slog.LevelError, "callback failed", slog.Any("error", err))
	}
	return err == nil
}

// handle calls the callback for a command, and answers it if it has an answer.
func (s *Session) handle(_ context.Context, k *Command) error {
	s.takeMacros(k)
	switch k.Type {
	case FrameAbort:
		s.abort()
		return nil
	case FrameRplcStatus:
		if s.ss.g.p.MsgReplaced != nil && !s.dead {
			s.call(func() { s.ss.g.p.MsgReplaced(s, k.Done) })
		}
		return nil
	}
	s.doing, s.command, s.reply = k.Type, k, ""
	s.changes, s.bytes, s.rcpts, s.added, s.deleted = nil, 0, 0, 0, nil
	if k.Type == FrameEOM {
		s.rcpts = k.Index
	}
	if k.Type >= FrameMail && k.Type != FrameUnknown {
		s.inTx = true
	}
	code := Temp
	var chunk []byte
	switch {
	case s.dead && k.Type != FrameConnect:
		code = Continue
	case !s.call(func() { code, chunk = s.ask(k) }):
		code, s.reply, s.changes = Temp, "", nil
	}
	code = s.fit(k, code)
	if s.over(k.Type, code) {
		s.inTx = false
	}
	frames := s.changes
	if code.Refuses() || code.Plain() == Discard {
		frames = nil
	}
	if k.Type == FrameNext && (code == Continue || code == OK) {
		frames = append(frames, Frame{Type: FrameChunk, Session: s.id, Data: chunk})
	}
	s.ss.debug(2, "callback returned", slog.Uint64("session", uint64(s.id)), slog.Int("command", int(k.Type)), slog.String("code", code.String()))
	a := Answer{To: k.Type, Code: code, Reply: s.reply}
	s.doing, s.command, s.changes = 0, nil, nil
	return s.ss.write(append(frames, Frame{Type: FrameAnswer, Session: s.id, Data: a.Append(nil)})...)
}

// over reports that a transaction has come to its end with the answer to a command.
func (s *Session) over(f FrameType, code Code) bool {
	switch f {
	case FrameMail:
		return code.Refuses()
	case FrameMsg, FrameNext:
		return code != Continue
	case FrameEOM:
		return code.Plain() != Replace
	}
	return false
}

// takeMacros keeps the macros of a command that were asked for. Those of its stage that it does
// not have, have no value any more, and MAIL ends those of the transaction before.
func (s *Session) takeMacros(k *Command) {
	from, to := k.Type.stage(), k.Type.stage()
	switch {
	case from == Stages:
		return
	case k.Type == FrameMail:
		to = StageDot
	}
	for stage := from; stage <= to; stage++ {
		for _, m := range s.ss.macros[stage] {
			delete(s.macros, m)
		}
	}
	for _, m := range k.Macros {
		for _, asked := range s.ss.macros[from] {
			if asked == m.Macro {
				s.macros[m.Macro] = m.Value
			}
		}
	}
}

// fit makes an answer that the server takes of what a callback returned.
func (s *Session) fit(k *Command, code Code) Code {
	switch {
	case !code.valid(k.Type), code.Plain() == Replace && s.ss.agreed.Fct&FctReplace == 0:
		s.ss.g.log.LogAttrs(s.life, slog.LevelError, "callback returned an impossible code", slog.Int("command", int(k.Type)), slog.String("code", code.String()))
		code, s.reply = Temp, ""
	case k.Type == FrameMsg && s.ss.agreed.Cap&CapMsgCode == 0:
		code, s.reply = Continue, ""
	}
	if s.reply == "" {
		return code
	}
	if r, err := ParseReply(s.reply); err != nil || r.Code != int(code.Plain()) {
		s.ss.g.log.LogAttrs(s.life, slog.LevelError, "callback set a reply that is not the code it returned", slog.Int("reply", r.Code), slog.String("code", code.String()))
		s.reply = ""
	}
	return code
}

// ask calls the callback for a command that has an answer. One that is not there goes on.
func (s *Session) ask(k *Command) (code Code, chunk []byte) {
	p := &s.ss.g.p
	switch {
	case k.Type == FrameConnect && p.Connect != nil:
		return p.Connect(s), nil
	case k.Type == FrameHelo && p.Helo != nil:
		return p.Helo(s, k.Name, k.ESMTP), nil
	case k.Type == FrameMail && p.Mail != nil:
		return p.Mail(s, k.Addr, k.Args), nil
	case k.Type == FrameRcpt && p.Rcpt != nil:
		return p.Rcpt(s, k.Addr, k.Args), nil
	case k.Type == FrameData && p.Data != nil:
		return p.Data(s), nil
	case k.Type == FrameUnknown && p.Unknown != nil:
		return p.Unknown(s, k.Name), nil
	case k.Type == FrameMsg && p.Msg != nil:
		return p.Msg(s, k.Chunk), nil
	case k.Type == FrameEOM && p.EOM != nil:
		return p.EOM(s), nil
	case k.Type == FrameNext && p.MsgReplace != nil:
		chunk, code = p.MsgReplace(s)
		if len(chunk) >= ChunkSize {
			s.ss.g.log.LogAttrs(s.life, slog.LevelError, "callback gave a chunk that is too large", slog.Int("size", len(chunk)))
			return Temp, nil
		}
		return code, chunk
	}
	return Continue, nil
}
