package pmilter

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"meta1/mta/supervise"
)

// Server is the context of one SMTP server that has connected (pmss_ctx).
type Server struct {
	g       *Global
	nc      net.Conn
	offer   Offer
	version uint16
	agreed  Options
	macros  [Stages][]Macro
	set     [Stages]bool // SetMacros was called
	closing bool         // negotiation is over

	out sync.Mutex // for writing to nc

	mu       sync.Mutex // guards the following
	sessions map[uint32]*Session
	context  any
}

// Global is the context of the program (sm_pmfi_get_ctx_g_ss).
func (ss *Server) Global() *Global { return ss.g }

// SetContext sets a value for the server (sm_pmfi_set_ctx_ss).
func (ss *Server) SetContext(v any) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.context = v
}

// Context is what SetContext has set (sm_pmfi_get_ctx_ss).
func (ss *Server) Context() any {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return ss.context
}

// Offer is what the server has offered.
func (ss *Server) Offer() Offer { return ss.offer }

// Agreed are the options that were agreed on.
func (ss *Server) Agreed() Options { return ss.agreed }

// Errors of SetMacros.
var (
	ErrNegotiated = errors.New("macros are chosen during the negotiation")
	ErrMacrosSet  = errors.New("the macros of this stage were chosen already")
	ErrMacros     = errors.New("too many macros at one stage")
	ErrNoMacro    = errors.New("no such macro")
)

// SetMacros chooses the macros that are sent at a stage (sm_pmfi_setmaclist,
// sm_pmfi_setmacs): MacrosMax at most, once for each stage, within Negotiate. A MacroEnd ends
// the list.
func (ss *Server) SetMacros(where Stage, list ...Macro) error {
	for i, m := range list {
		if m == MacroEnd {
			list = list[:i]
			break
		}
	}
	switch {
	case ss.closing:
		return ErrNegotiated
	case where >= Stages:
		return fmt.Errorf("%s is not known", where)
	case ss.set[where]:
		return fmt.Errorf("%w: %s", ErrMacrosSet, where)
	case len(list) > MacrosMax:
		return fmt.Errorf("%w: %d, but %d may be", ErrMacros, len(list), MacrosMax)
	}
	ss.set[where] = true
	ss.macros[where] = append([]Macro(nil), list...)
	return nil
}

// AddMacrosByName is SetMacros with names, such as tls_cn_issuer (sm_pmfi_addmaclistbyname,
// sm_pmfi_addmacsbyname). It may be called several times for a stage.
func (ss *Server) AddMacrosByName(where Stage, names ...string) error {
	if ss.closing {
		return ErrNegotiated
	}
	if where >= Stages {
		return fmt.Errorf("%s is not known", where)
	}
	list := append([]Macro(nil), ss.macros[where]...)
	for _, name := range names {
		m, ok := MacroByName(name)
		if !ok {
			return fmt.Errorf("%w: %q", ErrNoMacro, name)
		}
		list = append(list, m)
	}
	if len(list) > MacrosMax {
		return fmt.Errorf("%w: %d, but %d may be", ErrMacros, len(list), MacrosMax)
	}
	ss.set[where], ss.macros[where] = true, list
	return nil
}

// run negotiates and gives the frames to their sessions.
func (ss *Server) run(ctx context.Context) error {
	defer func() { _ = ss.nc.Close() }() // it is closed either way
	defer context.AfterFunc(ctx, func() { _ = ss.nc.Close() })()
	r, buf := bufio.NewReaderSize(ss.nc, ChunkSize), &bytes.Buffer{}
	if err := ss.negotiate(r, buf); err != nil {
		return fmt.Errorf("negotiating: %w", err)
	}
	ss.debug(1, "server connected")
	keeper := supervise.NewGroup(ctx)
	defer func() {
		keeper.Stop()
		_ = keeper.Wait() // sessions report their own errors
	}()
	for {
		f, err := ReadFrame(r, buf)
		switch {
		case err == nil:
			err = ss.take(keeper, f)
		case errors.Is(err, io.EOF) || ctx.Err() != nil:
			ss.debug(1, "server left")
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// negotiate reads the offer and answers it.
func (ss *Server) negotiate(r *bufio.Reader, buf *bytes.Buffer) error {
	if err := ss.nc.SetDeadline(time.Now().Add(ss.g.timeout)); err != nil {
		return err
	}
	f, err := ReadFrame(r, buf)
	if err != nil {
		return err
	}
	if f.Type != FrameOffer {
		return fmt.Errorf("%w: type 0x%x where an offer is due", ErrWire, uint8(f.Type))
	}
	if ss.offer, err = ParseOffer(f.Data); err != nil {
		return err
	}
	a, err := ss.agree()
	if err != nil {
		_ = ss.write(Frame{Type: FrameRefuse, Data: appendText(nil, err.Error())}) // the first error counts
		return err
	}
	if err := ss.write(Frame{Type: FrameAgree, Data: a.Append(nil)}); err != nil {
		return err
	}
	return ss.nc.SetDeadline(time.Time{})
}

// agree finds what both sides want.
func (ss *Server) agree() (a Agreement, err error) {
	o := &ss.offer
	ss.version = min(o.Max, VersionMax)
	if ss.version < max(o.Min, VersionMin) {
		return a, fmt.Errorf("the server knows versions %d to %d, but I know %d to %d", o.Min, o.Max, VersionMin, VersionMax)
	}
	o.Cap, o.Fct, o.Feat = o.Cap&CapAll, o.Fct&FctAll, o.Feat&FeatPRDR
	negotiate := ss.g.p.Negotiate
	if negotiate == nil {
		negotiate = NegotiateAll
	}
	want, err := negotiate(ss, *o)
	if err != nil {
		return a, err
	}
	ss.closing = true
	if extra := want.Cap &^ o.Cap; extra != 0 {
		return a, fmt.Errorf("capabilities 0x%x are needed, but not offered", uint32(extra))
	}
	want.Cap &= ss.g.p.caps()
	want.Fct &= o.Fct
	if ss.g.p.MsgReplace == nil {
		want.Fct &^= FctReplace
	}
	want.Feat &= o.Feat
	ss.agreed = want
	return Agreement{Version: ss.version, Options: want, Macros: ss.macros, Program: ss.g.p.Name}, nil
}

// take gives a frame to its session.
func (ss *Server) take(keeper *supervise.Group, f Frame) error {
	k, err := ParseCommand(f)
	if err != nil {
		return err
	}
	k.Chunk = append([]byte(nil), k.Chunk...)
	ss.mu.Lock()
	defer ss.mu.Unlock()
	s := ss.sessions[f.Session]
	switch {
	case f.Type != FrameConnect && s == nil:
		return fmt.Errorf("%w: session %d is not open", ErrWire, f.Session)
	case f.Type == FrameConnect && s != nil:
		return fmt.Errorf("%w: session %d is open already", ErrWire, f.Session)
	case s == nil && len(ss.sessions) >= SessionsMax:
		return fmt.Errorf("%w: more than %d sessions", ErrWire, SessionsMax)
	case s == nil:
		s = &Session{ss: ss, id: f.Session, in: make(chan Command, queueMax), macros: map[Macro]string{}}
		s.client = Client{Name: k.Name, Addr: k.Addr, Port: k.Port}
		ss.sessions[f.Session] = s
		keeper.Go(s.run)
	}
	if f.Type == FrameClose {
		delete(ss.sessions, f.Session)
		close(s.in)
		return nil
	}
	select {
	case s.in <- k:
		return nil
	default:
		return fmt.Errorf("%w: session %d has more commands than one without an answer", ErrWire, f.Session)
	}
}

// write writes frames as one piece. After an error the connection is closed.
func (ss *Server) write(frames ...Frame) error {
	n := 0
	for i := range frames {
		n += 4 + frameHead + len(frames[i].Data)
	}
	b := make([]byte, 0, n)
	for i := range frames {
		b = AppendFrame(b, frames[i])
	}
	ss.out.Lock()
	defer ss.out.Unlock()
	err := ss.nc.SetWriteDeadline(time.Now().Add(ss.g.timeout))
	if err == nil {
		_, err = ss.nc.Write(b)
	}
	if err != nil {
		_ = ss.nc.Close() // a frame may have been cut
	}
	return err
}

// debug logs at a debug level.
func (ss *Server) debug(level int, event string, attrs ...slog.Attr) {
	if ss.g.debug >= level {
		ss.g.log.LogAttrs(context.Background(), slog.LevelInfo, event, append(attrs, slog.String("server", ss.offer.Host))...)
	}
}
