package e2e

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"meta1/mta/tlsconf/tlstest"
)

// collector takes OTLP as a collector of OpenTelemetry does, in its JSON encoding.
type collector struct {
	*httptest.Server
	mu    sync.Mutex // guards what follows
	spans []collected
	wrong []string
}

// collected is a span as it came.
type collected struct {
	TraceID, SpanID, ParentSpanID, Name string
	Kind                                int
	StartTimeUnixNano, EndTimeUnixNano  uint64 `json:",string"`
	Attributes                          []struct {
		Key   string
		Value struct{ StringValue, IntValue string }
	}
	Status struct {
		Code    int
		Message string
	}
}

func (s *collected) attr(key string) string {
	for _, a := range s.Attributes {
		if a.Key == key {
			return a.Value.StringValue + a.Value.IntValue
		}
	}
	return ""
}

func newCollector(t *testing.T, token string) *collector {
	t.Helper()
	c := &collector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		c.mu.Lock()
		defer c.mu.Unlock()
		if err != nil || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/json" || r.Header.Get("Authorization") != "Bearer "+token {
			c.wrong = append(c.wrong, fmt.Sprint(r.URL, r.Header, err))
		}
		if err := c.take(body); err != nil {
			c.wrong = append(c.wrong, err.Error())
		}
	}))
	t.Cleanup(c.Close)
	return c
}

// take reads a request.
func (c *collector) take(body []byte) error {
	var q struct {
		ResourceSpans []struct {
			Resource   any
			ScopeSpans []struct {
				Scope struct{ Name string }
				Spans []collected
			}
		}
	}
	if err := json.Unmarshal(body, &q); err != nil {
		return err
	}
	for _, r := range q.ResourceSpans {
		for _, s := range r.ScopeSpans {
			c.spans = append(c.spans, s.Spans...)
		}
	}
	if len(c.spans) == 0 || !strings.Contains(fmt.Sprint(q.ResourceSpans[0].Resource), "environment") {
		return fmt.Errorf("no spans, or no attributes: %s", body)
	}
	return nil
}

// tree is the spans of the only trace, by the name of the parent and their own.
func (c *collector) tree() (tree []string, all []collected, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	names := map[string]string{"": ""}
	for _, s := range c.spans {
		names[s.SpanID] = s.Name
	}
	for _, s := range c.spans {
		if s.TraceID != c.spans[0].TraceID {
			return nil, nil, fmt.Errorf("several traces: %v", c.spans)
		}
		if _, ok := names[s.ParentSpanID]; !ok {
			return nil, nil, fmt.Errorf("%s has no parent", s.Name)
		}
		if s.EndTimeUnixNano < s.StartTimeUnixNano {
			return nil, nil, fmt.Errorf("%s ends before it begins", s.Name)
		}
		tree = append(tree, names[s.ParentSpanID]+"/"+s.Name)
	}
	slices.Sort(tree)
	return tree, slices.Clone(c.spans), nil
}

// TestTraces follows a message that is deferred, waits over a restart, and is delivered by TLS: all of it is one
// trace, and no mailbox is named in it.
func TestTraces(t *testing.T) {
	t.Parallel()
	dir := testDir(t)
	writeFile(t, dir+"/token", "sesame\n")
	c := newCollector(t, "sesame")
	s := newSink(t, "")
	s.answer(func(verb, _ string) string {
		return map[string]string{"RCPT": "451 4.7.1 not yet, secretary@sink.test"}[verb]
	})
	cert := tlstest.SelfSigned(t, tlstest.Spec{CN: "sink.test"})
	pair, err := tls.X509KeyPair(cert.PEM(), cert.KeyPEM(t))
	if err != nil {
		t.Fatal(err)
	}
	s.tls.Store(&tls.Config{Certificates: []tls.Certificate{pair}})
	m := run(t, settings{
		mailertable: toPort(t, "sink.test", s.addr) + "client.test 9^esmtp:[127.0.0.1]\n", smtpc: "tls { }",
		global: fmt.Sprintf(`traces { endpoint = "%s/v1/traces"; token_file = "%s/token"; attributes = { "environment=test" }; }`, c.URL, dir),
		smtps:  `policy_service gone { socket { type = unix; path = "gone.sock"; }; on_failure = accept; relaying_clients = true; }`,
	})
	msg := testMessage(1, 1000, "secretary@sink.test")
	msg.from = "boss@client.test"
	if err := sendOne(m.smtp, msg); err != nil {
		t.Fatal(err)
	}
	must(t, func() error { return m.queueShows(1, "not yet") })
	m.stop()
	s.answer(func(string, string) string { return "" })
	m.start()
	s.waitFor(1)
	m.queueEmpty()

	must(t, func() error {
		tree, all, err := c.tree()
		if err != nil {
			return err
		}
		once := strings.Join(slices.Compact(slices.Clone(tree)), " ")
		want := "/message attempt/connect attempt/tls attempt/transmit message/attempt message/queue message/receive " +
			"receive/check connect receive/check ehlo receive/check mail receive/check rcpt receive/commit receive/data receive/policy_service gone"
		if once != want {
			return fmt.Errorf("the trace is %s, want %s", once, want)
		}
		if n := len(regexp.MustCompile(`message/attempt`).FindAllString(strings.Join(tree, " "), -1)); n < 2 {
			return fmt.Errorf("%d attempts", n)
		}
		return checkSpans(all)
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.wrong) > 0 {
		t.Errorf("%d requests are wrong: %s", len(c.wrong), c.wrong[0])
	}
	if text := fmt.Sprint(c.spans); strings.Contains(text, "secretary") || strings.Contains(text, "boss") {
		t.Errorf("a mailbox is named: %s", text)
	}
}

// checkSpans looks at the attributes, and at which attempts failed.
func checkSpans(all []collected) error {
	failed, served := 0, 0
	for _, s := range all {
		switch {
		case s.Name == "message" && (s.attr("meta1.ss_ta") == "" || s.attr("meta1.sender_domain") != "client.test"):
			return fmt.Errorf("%+v", s)
		case s.Name == "receive" && (s.Kind != 2 || s.attr("client.address") != "127.0.0.1"):
			return fmt.Errorf("%+v", s)
		case s.Name == "tls" && !strings.HasPrefix(s.attr("tls.protocol.version"), "TLSv1"):
			return fmt.Errorf("%+v", s)
		case s.Name == "attempt" && s.Status.Code == 2 && s.Status.Message == "451 4.7.1":
			failed++
		case s.Name == "attempt" && s.attr("meta1.delivered") == "1":
			served++
		}
	}
	if failed == 0 || served != 1 {
		return fmt.Errorf("%d attempts failed, %d served", failed, served)
	}
	return nil
}
