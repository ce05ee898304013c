package pmilter

import (
	"encoding/binary"
	"fmt"
	"time"
)

// magic begins an offer and its agreement, so that neither side talks to something else.
const magic = "PMLT"

// Offer is what a server says first.
type Offer struct {
	Min, Max uint16 // versions that it knows
	Options
	Timeout time.Duration // how long it waits for an answer, in whole milliseconds
	Host    string        // its host name
	Program string        // and version
}

// Options are what the two sides agree on: those of the agreement are a part of those that
// were offered (pmfi_negotiate: cap, fct, feat, misc).
type Options struct {
	Cap  Cap
	Fct  Fct
	Feat Feat
	Misc uint32 // 0
}

func (o *Options) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(o.Cap))
	b = binary.BigEndian.AppendUint32(b, uint32(o.Fct))
	b = binary.BigEndian.AppendUint32(b, uint32(o.Feat))
	return binary.BigEndian.AppendUint32(b, o.Misc)
}

func (r *reader) options() Options {
	return Options{Cap: Cap(r.number()), Fct: Fct(r.number()), Feat: Feat(r.number()), Misc: r.number()}
}

func (r *reader) magic() {
	if r.err == nil && string(r.take(len(magic))) != magic {
		r.err = nil
		r.fail("no policy milter")
	}
}

// Append adds the offer to b.
func (o *Offer) Append(b []byte) []byte {
	b = append(b, magic...)
	b = binary.BigEndian.AppendUint16(b, o.Min)
	b = binary.BigEndian.AppendUint16(b, o.Max)
	b = o.Options.append(b)
	b = binary.BigEndian.AppendUint32(b, uint32(min(o.Timeout.Milliseconds(), 1<<31)))
	return appendText(appendText(b, o.Host), o.Program)
}

// ParseOffer reads an offer. What stands behind it is of a later version, and not looked at.
func ParseOffer(data []byte) (o Offer, err error) {
	r := reader{data: data}
	r.magic()
	o.Min, o.Max = r.short(), r.short()
	o.Options = r.options()
	o.Timeout = time.Duration(r.number()) * time.Millisecond
	o.Host, o.Program = r.text(), r.text()
	return o, r.err
}

// Agreement is the answer to an offer.
type Agreement struct {
	Version uint16
	Options
	Macros  [Stages][]Macro // that are wanted with the commands
	Program string          // name of the policy milter
}

// Append adds the agreement to b.
func (a *Agreement) Append(b []byte) []byte {
	b = append(b, magic...)
	b = binary.BigEndian.AppendUint16(b, a.Version)
	b = a.Options.append(b)
	b = append(b, byte(Stages))
	for _, list := range a.Macros {
		list = list[:min(len(list), MacrosMax)]
		b = append(b, byte(len(list)))
		for _, m := range list {
			b = binary.BigEndian.AppendUint32(b, uint32(m))
		}
	}
	return appendText(b, a.Program)
}

// ParseAgreement reads the answer to offer. It is wrong if it has what was not offered.
func ParseAgreement(data []byte, offer *Offer) (a Agreement, err error) {
	r := reader{data: data}
	r.magic()
	a.Version = r.short()
	a.Options = r.options()
	n := Stage(r.byte())
	for s := range n {
		count := int(r.byte())
		if count > MacrosMax {
			r.fail("%d macros at one stage", count)
		}
		for range count {
			if m := Macro(r.number()); r.err == nil && s < Stages {
				a.Macros[s] = append(a.Macros[s], m)
			}
		}
	}
	a.Program = r.text()
	switch {
	case r.err != nil:
	case a.Version < offer.Min || a.Version > offer.Max:
		r.fail("version %d, but %d to %d are known", a.Version, offer.Min, offer.Max)
	case a.Cap&^offer.Cap != 0 || a.Fct&^offer.Fct != 0 || a.Feat&^offer.Feat != 0:
		r.fail("options that were not offered: 0x%x 0x%x 0x%x", uint32(a.Cap&^offer.Cap), uint32(a.Fct&^offer.Fct), uint32(a.Feat&^offer.Feat))
	}
	return a, r.err
}

// MacroValue is a macro with its value.
type MacroValue struct {
	Macro Macro
	Value string
}

// Command is one step of the dialogue. Each type uses some of the fields.
type Command struct {
	Type   FrameType
	Macros []MacroValue // of all but FrameMsg and FrameNext
	Name   string       // name of the client, argument of EHLO, or an unknown command
	Addr   string       // IP address of the client, "" for a local one; or an address as in MAIL, with brackets
	Port   uint16       // of the client
	ESMTP  bool         // EHLO, not HELO
	Args   []string     // parameters of MAIL and RCPT
	Index  uint32       // of a recipient, from 0; of FrameEOM: how many were accepted
	Status uint16       // of a recipient: 250, or why it was refused
	Reply  string       // the text of Status, as in SetReply; "" for 250
	Chunk  []byte       // of FrameMsg; Parse does not copy it
	Done   bool         // of FrameRplcStatus: the message was replaced
}

// Append adds the data of the command to b. Macros beyond MacrosMax, parameters beyond
// ArgsMax, and texts beyond their bounds are cut.
func (k *Command) Append(b []byte) []byte {
	if k.hasMacros() {
		list := k.Macros[:min(len(k.Macros), MacrosMax)]
		b = append(b, byte(len(list)))
		for _, m := range list {
			b = binary.BigEndian.AppendUint32(b, uint32(m.Macro))
			b = appendText(b, m.Value[:min(len(m.Value), MacroValueMax)])
		}
	}
	switch k.Type {
	case FrameConnect:
		b = binary.BigEndian.AppendUint16(appendText(appendText(b, k.Name), k.Addr), k.Port)
	case FrameHelo:
		b = appendText(append(b, flag(k.ESMTP)), k.Name)
	case FrameMail:
		b = appendTexts(appendText(b, k.Addr), k.Args)
	case FrameRcpt:
		b = binary.BigEndian.AppendUint32(b, k.Index)
		b = appendText(binary.BigEndian.AppendUint16(b, k.Status), k.Reply)
		b = appendTexts(appendText(b, k.Addr), k.Args)
	case FrameUnknown:
		b = appendText(b, k.Name)
	case FrameMsg:
		b = append(b, k.Chunk...)
	case FrameEOM:
		b = binary.BigEndian.AppendUint32(b, k.Index)
	case FrameRplcStatus:
		b = append(b, flag(k.Done))
	}
	return b
}

func flag(set bool) byte {
	if set {
		return 1
	}
	return 0
}

func (k *Command) hasMacros() bool {
	return k.Type >= FrameConnect && k.Type <= FrameEOM && k.Type != FrameMsg
}

// answered reports a command that has an answer.
func (f FrameType) answered() bool { return f >= FrameConnect && f <= FrameNext }

// stage is that of the macros of a command; Stages for a command without.
func (f FrameType) stage() Stage {
	switch f {
	case FrameConnect:
		return StageConnect
	case FrameHelo:
		return StageHelo
	case FrameMail:
		return StageMail
	case FrameRcpt:
		return StageRcpt
	case FrameData:
		return StageData
	case FrameEOM:
		return StageDot
	}
	return Stages
}

// Stage is that of the macros of a command. ok is false for a command without.
func (f FrameType) Stage() (s Stage, ok bool) { s = f.stage(); return s, s < Stages }

// ParseCommand reads a command.
func ParseCommand(f Frame) (k Command, err error) {
	k.Type = f.Type
	if !f.Type.answered() && (f.Type < FrameRplcStatus || f.Type > FrameClose) {
		return k, fmt.Errorf("%w: type 0x%x", ErrWire, uint8(f.Type))
	}
	r := reader{data: f.Data}
	if k.hasMacros() {
		n := int(r.byte())
		if n > MacrosMax {
			r.fail("%d macros", n)
		}
		for range n {
			if m := (MacroValue{Macro(r.number()), r.text()}); r.err == nil {
				k.Macros = append(k.Macros, m)
			}
		}
	}
	switch f.Type {
	case FrameConnect:
		k.Name, k.Addr, k.Port = r.text(), r.text(), r.short()
	case FrameHelo:
		k.ESMTP, k.Name = r.byte() != 0, r.text()
	case FrameMail:
		k.Addr, k.Args = r.text(), r.texts()
	case FrameRcpt:
		k.Index, k.Status, k.Reply = r.number(), r.short(), r.text()
		k.Addr, k.Args = r.text(), r.texts()
	case FrameUnknown:
		k.Name = r.text()
	case FrameMsg:
		if k.Chunk = r.data; len(k.Chunk) >= ChunkSize {
			r.fail("a chunk of %d bytes", len(k.Chunk))
		}
	case FrameEOM:
		k.Index = r.number()
	case FrameRplcStatus:
		k.Done = r.byte() != 0
	}
	return k, r.err
}

// Answer ends what a policy milter says to a command.
type Answer struct {
	To    FrameType // type of the command
	Code  Code      // perhaps with Quick
	Reply string    // as in SetReply; "" for the server's own words
}

// Append adds the answer to b.
func (a *Answer) Append(b []byte) []byte {
	b = append(b, byte(a.To))
	return appendText(binary.BigEndian.AppendUint16(b, uint16(a.Code)), a.Reply)
}

// ParseAnswer reads the answer to a command of type to, and checks its code and its reply.
func ParseAnswer(data []byte, to FrameType) (a Answer, err error) {
	r := reader{data: data}
	a.To = FrameType(r.byte())
	a.Code, a.Reply = Code(r.short()), r.text()
	switch {
	case r.err != nil:
	case a.To != to:
		r.fail("an answer to 0x%x where one to 0x%x is due", uint8(a.To), uint8(to))
	case !a.Code.valid(to):
		r.fail("code %s", a.Code)
	case a.Reply != "":
		var reply Reply
		if reply, r.err = ParseReply(a.Reply); r.err == nil && reply.Code != int(a.Code.Plain()) {
			r.fail("a reply with code %d where the answer has %s", reply.Code, a.Code)
		}
	}
	return a, r.err
}

// Change is one change of a message. Each type uses some of the fields.
type Change struct {
	Type    FrameType
	Addr    string   // in the form of RFC 2821, with brackets
	Args    []string // parameters of MAIL or RCPT
	Index   uint32   // of the recipient that is removed
	Mod     HeaderMod
	Pos     uint32 // of the field
	Header  string // complete field with CR LF; "" of HeaderRemove
	Replies []Reply
	Chunk   []byte // of the replacement; Parse does not copy it
	Reason  string // of FrameHold
}

// Append adds the data of the change to b.
func (c *Change) Append(b []byte) []byte {
	switch c.Type {
	case FrameChunk:
		b = append(b, c.Chunk...)
	case FrameMailReplace, FrameRcptAdd:
		b = appendTexts(appendText(b, c.Addr), c.Args)
	case FrameRcptDel:
		b = binary.BigEndian.AppendUint32(appendText(b, c.Addr), c.Index)
	case FrameHeader:
		b = binary.BigEndian.AppendUint32(append(b, byte(c.Mod)), c.Pos)
		b = appendText(b, c.Header)
	case FrameReplies:
		b = binary.BigEndian.AppendUint32(b, uint32(len(c.Replies)))
		for i := range c.Replies {
			b = binary.BigEndian.AppendUint16(b, uint16(c.Replies[i].Code))
		}
	case FrameHold:
		b = appendText(b, c.Reason)
	}
	return b
}

// ParseChange reads a change, and checks it but for its addresses.
func ParseChange(f Frame) (c Change, err error) {
	c.Type = f.Type
	r := reader{data: f.Data}
	switch f.Type {
	case FrameChunk:
		if c.Chunk = r.data; len(c.Chunk) >= ChunkSize {
			r.fail("a chunk of %d bytes", len(c.Chunk))
		}
	case FrameMailReplace, FrameRcptAdd:
		c.Addr, c.Args = r.text(), r.texts()
	case FrameRcptDel:
		c.Addr, c.Index = r.text(), r.number()
	case FrameHeader:
		c.Mod, c.Pos, c.Header = HeaderMod(r.byte()), r.number(), r.text()
		if r.err == nil {
			r.err = CheckHeader(c.Mod, c.Header)
		}
	case FrameReplies:
		n := r.number()
		if n > RepliesMax {
			r.fail("%d replies", n)
			n = 0
		}
		for range n {
			code := Code(r.short())
			if r.err == nil && code != OK && !code.Refuses() {
				r.fail("a reply for a recipient with code %d", uint16(code))
			}
			if r.err != nil {
				break
			}
			c.Replies = append(c.Replies, Reply{Code: int(code)})
		}
	case FrameHold:
		c.Reason = r.text()
	default:
		return c, fmt.Errorf("%w: type 0x%x", ErrWire, uint8(f.Type))
	}
	return c, r.err
}

// Needs is the function that must be agreed on for a change of that type; 0 for none.
func (f FrameType) Needs() Fct {
	switch f {
	case FrameChunk:
		return FctReplace
	case FrameMailReplace:
		return FctMailReplace
	case FrameRcptAdd:
		return FctRcptAdd
	case FrameRcptDel:
		return FctRcptDel
	case FrameHeader:
		return FctHeader
	case FrameReplies:
		return FctReplies
	case FrameHold:
		return FctHold
	}
	return 0
}
