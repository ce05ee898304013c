package tracing

import (
	"encoding/hex"
	"encoding/json"
	"strconv"
	"strings"
	"time"
)

// textMax bounds an attribute, in bytes: replies of other hosts are among them.
const textMax = 512

// The JSON encoding of OTLP (opentelemetry-proto, ExportTraceServiceRequest): names in lowerCamelCase, ids in
// hexadecimal, numbers of 64 bits as strings, enumerations as numbers.
type (
	request struct {
		ResourceSpans []resourceSpans `json:"resourceSpans"`
	}
	resourceSpans struct {
		Resource   resource     `json:"resource"`
		ScopeSpans []scopeSpans `json:"scopeSpans"`
	}
	resource struct {
		Attributes []keyValue `json:"attributes"`
	}
	scopeSpans struct {
		Scope scope      `json:"scope"`
		Spans []jsonSpan `json:"spans"`
	}
	scope struct {
		Name    string `json:"name"`
		Version string `json:"version"`
	}
	jsonSpan struct {
		TraceID    string     `json:"traceId"`
		SpanID     string     `json:"spanId"`
		Parent     string     `json:"parentSpanId,omitempty"`
		Name       string     `json:"name"`
		Kind       Kind       `json:"kind"`
		Start      string     `json:"startTimeUnixNano"`
		End        string     `json:"endTimeUnixNano"`
		Attributes []keyValue `json:"attributes,omitempty"`
		Status     *status    `json:"status,omitempty"`
	}
	status struct {
		Code    int    `json:"code"`
		Message string `json:"message,omitempty"`
	}
	keyValue struct {
		Key   string   `json:"key"`
		Value anyValue `json:"value"`
	}
	anyValue struct {
		String *string `json:"stringValue,omitempty"`
		Int    *string `json:"intValue,omitempty"`
	}
)

// statusError is OTLP's STATUS_CODE_ERROR.
const statusError = 2

// encode makes the body of a request.
func (t *Tracer) encode(w *way, batch []Span) []byte {
	spans := make([]jsonSpan, len(batch))
	for i := range batch {
		spans[i] = t.encodeSpan(&batch[i])
	}
	body, err := json.Marshal(request{[]resourceSpans{{
		Resource:   resource{t.resource(w)},
		ScopeSpans: []scopeSpans{{scope{"meta1", t.deps.Version}, spans}},
	}}})
	if err != nil {
		panic(err) // strings and numbers alone
	}
	return body
}

func (t *Tracer) encodeSpan(s *Span) jsonSpan {
	trace := t.traceOf(s.TA)
	root := trace.root()
	j := jsonSpan{
		TraceID: hex.EncodeToString(trace[:]), SpanID: hex.EncodeToString(root[:]), Name: text(s.Name), Kind: max(s.Kind, Internal),
		Start: nanoseconds(s.Start), End: nanoseconds(latest(s.Start, s.End)), Attributes: keyValues(s.Attrs),
	}
	if !s.whole {
		id, parent := s.ID, s.Parent
		if id == (SpanID{}) {
			id = NewSpanID()
		}
		if parent == (SpanID{}) {
			parent = root
		}
		j.SpanID, j.Parent = hex.EncodeToString(id[:]), hex.EncodeToString(parent[:])
	}
	if s.Failed != "" {
		j.Status = &status{statusError, text(s.Failed)}
	}
	return j
}

// resource says who we are.
func (t *Tracer) resource(w *way) []keyValue {
	attrs := []Attr{
		{Key: "service.name", Text: w.cfg.ServiceName},
		{Key: "service.version", Text: t.deps.Version},
		{Key: "service.instance.id", Text: t.deps.Hostname + ":" + t.deps.Spool},
		{Key: "host.name", Text: t.deps.Hostname},
	}
	for _, a := range w.cfg.Attributes {
		key, value, _ := strings.Cut(a, "=")
		attrs = append(attrs, Attr{Key: key, Text: value})
	}
	return keyValues(attrs)
}

func keyValues(attrs []Attr) []keyValue {
	list := make([]keyValue, 0, len(attrs))
	for _, a := range attrs {
		v := anyValue{}
		if a.Text != "" {
			s := text(a.Text)
			v.String = &s
		} else {
			s := strconv.FormatInt(a.Number, 10)
			v.Int = &s
		}
		list = append(list, keyValue{a.Key, v})
	}
	return list
}

// nanoseconds is a time as OTLP has it; none is before 1970.
func nanoseconds(t time.Time) string { return strconv.FormatInt(max(t.UnixNano(), 0), 10) }

// latest is the later of two times: no span ends before it begins, whatever was done to the clock.
func latest(a, b time.Time) time.Time {
	if b.Before(a) {
		return a
	}
	return b
}

// text is a bounded text in UTF-8.
func text(s string) string { return strings.ToValidUTF8(s[:min(len(s), textMax)], "\uFFFD") }
