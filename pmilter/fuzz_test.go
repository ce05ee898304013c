package pmilter

import (
	"bufio"
	"bytes"
	"reflect"
	"testing"
)

// FuzzCommands reads what a server may send: no frame is larger than its bound, and what was
// read is written the same way.
func FuzzCommands(f *testing.F) {
	offer := Offer{Min: 1, Max: 2, Host: "h", Program: "p"}
	f.Add(AppendFrame(nil, Frame{Type: FrameOffer, Data: offer.Append(nil)}))
	for _, k := range []Command{
		{Type: FrameConnect, Name: "n", Addr: "::1", Port: 25, Macros: []MacroValue{{MacroSeID, "x"}}},
		{Type: FrameRcpt, Addr: "<a@b>", Args: []string{"NOTIFY=NEVER"}, Index: 3, Status: 550, Reply: "550 5.1.1 no\r\n"},
		{Type: FrameMail, Addr: "<>"},
		{Type: FrameMsg, Chunk: []byte("x")},
		{Type: FrameEOM, Index: 2},
		{Type: FrameRplcStatus, Done: true},
		{Type: FrameClose},
	} {
		f.Add(AppendFrame(nil, Frame{Type: k.Type, Session: 1, Data: k.Append(nil)}))
	}
	f.Add([]byte("\xff\xff\xff\xff\x01\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, buf := bufio.NewReader(bytes.NewReader(in)), &bytes.Buffer{}
		for {
			fr, err := ReadFrame(r, buf)
			if err != nil {
				return
			}
			if len(fr.Data) > FrameMax {
				t.Fatalf("%d bytes", len(fr.Data))
			}
			if o, err := ParseOffer(fr.Data); err == nil && fr.Type == FrameOffer {
				if back, err := ParseOffer(o.Append(nil)); err != nil || back != o && o.Timeout.Milliseconds() <= 1<<31 {
					t.Fatalf("%+v became %+v, %v", o, back, err)
				}
			}
			k, err := ParseCommand(fr)
			if err != nil {
				continue
			}
			long := false
			for _, m := range k.Macros {
				long = long || len(m.Value) > MacroValueMax
			}
			back, err := ParseCommand(Frame{Type: fr.Type, Data: k.Append(nil)})
			if len(k.Chunk)+len(back.Chunk) == 0 {
				k.Chunk, back.Chunk = nil, nil
			}
			if !long && (err != nil || !reflect.DeepEqual(k, back)) {
				t.Fatalf("%+v became %+v, %v", k, back, err)
			}
		}
	})
}

// FuzzAnswers reads what a policy milter may send: no reply can forge another one, and no
// field can end a header or its own field.
func FuzzAnswers(f *testing.F) {
	offer := Offer{Min: 1, Max: 1, Options: Options{Cap: CapAll, Fct: FctAll}}
	agree := Agreement{Version: 1, Options: offer.Options, Program: "x"}
	agree.Macros[StageDot] = []Macro{MacroDotMsgID}
	f.Add(AppendFrame(nil, Frame{Type: FrameAgree, Data: agree.Append(nil)}))
	for _, a := range []Answer{{FrameHelo, 550, "550-5.7.1 a\r\n550 5.7.1 b\r\n"}, {FrameHelo, Quick(Discard), ""}, {FrameEOM, Replace, ""}} {
		f.Add(AppendFrame(nil, Frame{Type: FrameAnswer, Session: 1, Data: a.Append(nil)}))
	}
	for _, c := range []Change{
		{Type: FrameHeader, Mod: HeaderInsert, Pos: 1, Header: "A: b\r\n\tc\r\n"},
		{Type: FrameRcptAdd, Addr: "<a@b>", Args: []string{"X"}},
		{Type: FrameRcptDel, Addr: "<a@b>", Index: 4},
		{Type: FrameReplies, Replies: []Reply{{Code: 250}, {Code: 452}}},
		{Type: FrameChunk, Chunk: []byte("x")},
		{Type: FrameHold, Reason: "r"},
	} {
		f.Add(AppendFrame(nil, Frame{Type: c.Type, Session: 1, Data: c.Append(nil)}))
	}
	f.Add([]byte("\xff\xff\xff\xff\x90\x00\x00\x00\x01"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, buf := bufio.NewReader(bytes.NewReader(in)), &bytes.Buffer{}
		for {
			fr, err := ReadFrame(r, buf)
			if err != nil {
				return
			}
			if a, err := ParseAgreement(fr.Data, &offer); err == nil && fr.Type == FrameAgree {
				if back, err := ParseAgreement(a.Append(nil), &offer); err != nil || !reflect.DeepEqual(a, back) {
					t.Fatalf("%+v became %+v, %v", a, back, err)
				}
			}
			if a, err := ParseAnswer(fr.Data, FrameEOM); err == nil && a.Reply != "" {
				reply, err := ParseReply(a.Reply)
				if err != nil || bytes.Count([]byte(a.Reply), []byte{'\n'}) != len(reply.Lines) || reply.Code < 250 || reply.Code > 599 {
					t.Fatalf("%+v: %+v, %v", a, reply, err)
				}
			}
			c, err := ParseChange(fr)
			if err != nil {
				continue
			}
			if c.Type == FrameHeader && c.Mod != HeaderRemove {
				for i, line := range bytes.Split(bytes.TrimSuffix([]byte(c.Header), []byte("\r\n")), []byte("\r\n")) {
					if len(bytes.TrimSpace(line)) == 0 || i > 0 && line[0] != ' ' && line[0] != '\t' || bytes.ContainsAny(line, "\r\n\x00") {
						t.Fatalf("field %q", c.Header)
					}
				}
			}
			back, err := ParseChange(Frame{Type: fr.Type, Data: c.Append(nil)})
			if len(c.Chunk)+len(back.Chunk) == 0 {
				c.Chunk, back.Chunk = nil, nil
			}
			if err != nil || !reflect.DeepEqual(c, back) {
				t.Fatalf("%+v became %+v, %v", c, back, err)
			}
		}
	})
}
