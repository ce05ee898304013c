package maillog

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"meta1/mta/logline"
)

// lineMax bounds a line, in bytes.
const lineMax = 256 << 10

// Field is one field of a line.
type Field struct{ Name, Value string }

// Line is a line of a log.
type Line struct {
	Time   time.Time // zero if the line has none
	Fields []Field   // in their order, without the time; values as they were before they were printed
}

// Get is the value of a field, "" for none.
func (l *Line) Get(name string) string {
	for i := range l.Fields {
		if l.Fields[i].Name == name {
			return l.Fields[i].Value
		}
	}
	return ""
}

// MarshalJSON implements json.Marshaler: an object of the fields, in their order.
func (l *Line) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	put := func(name, value string) error {
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		for i, s := range []string{name, value} {
			e := json.NewEncoder(&b)
			e.SetEscapeHTML(false) // addresses stay readable
			if err := e.Encode(s); err != nil {
				return err
			}
			b.Truncate(b.Len() - 1) // the line break
			if i == 0 {
				b.WriteByte(':')
			}
		}
		return nil
	}
	if !l.Time.IsZero() {
		if err := put("time", l.Time.UTC().Format(time.RFC3339Nano)); err != nil {
			return nil, err
		}
	}
	for _, f := range l.Fields {
		if err := put(f.Name, f.Value); err != nil {
			return nil, err
		}
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// Parse reads a line. ok is false for one that is not of meta1.
func Parse(b []byte) (l Line, ok bool) {
	b = bytes.TrimRight(b, "\r\n")
	head, body := logline.Split(b)
	switch {
	case len(body) == 0:
		return l, false
	case body[0] == '{':
		return parseJSON(body)
	}
	l.Time = timeIn(head)
	for field := range bytes.SplitSeq(body, []byte(", ")) {
		name, value, found := bytes.Cut(field, []byte("="))
		if !found || len(name) == 0 {
			return Line{}, false
		}
		l.Fields = append(l.Fields, Field{string(name), logline.Unescape(string(value))})
	}
	return l, true
}

// timeIn finds the time in what stands in front of the fields: the last word that is one.
func timeIn(head []byte) (t time.Time) {
	for word := range bytes.FieldsSeq(head) {
		if at, err := time.Parse(time.RFC3339Nano, string(word)); err == nil {
			t = at
		}
	}
	return t
}

// parseJSON reads a JSON object: a line of ours, or one of journalctl with it inside.
func parseJSON(b []byte) (l Line, ok bool) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return l, false
	}
	var message string
	var journal, logged time.Time
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return l, false
		}
		var value any
		if d.Decode(&value) != nil {
			return l, false
		}
		text := jsonText(value)
		switch name {
		case "MESSAGE":
			message = text
		case "__REALTIME_TIMESTAMP":
			if us, err := strconv.ParseInt(text, 10, 64); err == nil {
				journal = time.UnixMicro(us)
			}
		case "META1_TIME": // the journal's own is when it got the line
			logged, _ = time.Parse(time.RFC3339Nano, text)
		case "time":
			l.Time, _ = time.Parse(time.RFC3339Nano, text)
		default:
			l.Fields = append(l.Fields, Field{name.(string), text})
		}
	}
	if !journal.IsZero() {
		if strings.Contains(message, "__REALTIME_TIMESTAMP") {
			return Line{}, false // a line within a line within a line
		}
		if l, ok = Parse([]byte(message)); !ok || !l.Time.IsZero() {
			return l, ok
		}
		if l.Time = logged; logged.IsZero() {
			l.Time = journal
		}
		return l, ok
	}
	return l, l.Get("sev") != ""
}

// jsonText is a value as the text format would have it.
func jsonText(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case nil:
		return ""
	case []any: // journalctl writes what is not UTF-8 as numbers
		b := make([]byte, 0, len(v))
		for _, e := range v {
			n, ok := e.(json.Number)
			if i, err := strconv.ParseUint(n.String(), 10, 8); ok && err == nil {
				b = append(b, byte(i))
				continue
			}
			text, _ := json.Marshal(v)
			return string(text)
		}
		return string(b)
	}
	text, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	return string(text)
}
