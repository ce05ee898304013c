package tracing

import (
	"net/netip"
	"net/url"
	"strings"
	"time"

	"meta1/confparse"
)

// Config is the section traces.
type Config struct {
	Present     bool
	Endpoint    string
	OneIn       int // one message in so many is traced
	TokenFile   string
	TokenHeader string
	CAFile      string
	Timeout     time.Duration
	QueueMax    int // spans
	ServiceName string
	Attributes  []string // key=value
}

// Options is the table of the section, bound to c.
func (c *Config) Options() *confparse.Table {
	return &confparse.Table{Check: c.check, Options: []confparse.Option{
		{
			Name: "endpoint", Type: confparse.String, Default: "http://127.0.0.1:4318/v1/traces", Readme: "own", Into: &c.Endpoint,
			Doc: "Where spans are posted: the URL of a collector that takes OTLP/HTTP with JSON, path included. Redirections are not followed, and no proxy is used.",
		},
		{
			Name: "one_in", Type: confparse.Int, Unit: "entries", Default: "1", Min: "1", Max: "1000000000", Readme: "own", Into: &c.OneIn,
			Doc: "One message in so many is traced, chosen by its id: 1 traces all, 1000 one in a thousand.",
		},
		{
			Name: "token_file", Type: confparse.File, Readme: "own", Into: &c.TokenFile,
			Doc: "A file with a token, which is sent in token_header. It is read for each request, so it may be renewed at any time. Without https it goes to a loopback address alone.",
		},
		{
			Name: "token_header", Type: confparse.String, Default: "Authorization", Readme: "own", Into: &c.TokenHeader,
			Doc: "The field of HTTP that has the token: behind the word Bearer in Authorization, and alone in any other.",
		},
		{
			Name: "CAcert_file", Type: confparse.File, Readme: "own", Into: &c.CAFile,
			Doc: "Authorities that are trusted for the collector's certificate, in PEM format. The default are those of the system.",
		},
		{
			Name: "timeout", Type: confparse.Time, Unit: "s", Default: "10", Min: "1s", Max: "5m", Readme: "own", Into: &c.Timeout,
			Doc: "How long one request may take. One that fails for the moment is tried again for five minutes.",
		},
		{
			Name: "spans_max", Type: confparse.Int, Unit: "entries", Default: "10000", Min: "100", Max: "1000000", Readme: "own", Into: &c.QueueMax,
			Doc: "How many spans may wait to be sent, each some 500 bytes. What comes beyond that is dropped and counted; mail never waits.",
		},
		{
			Name: "service_name", Type: confparse.String, Default: "meta1", Readme: "own", Into: &c.ServiceName,
			Doc: "The attribute service.name of the resource.",
		},
		{
			Name: "attributes", Type: confparse.List, Readme: "own", Into: &c.Attributes,
			Doc: "Further attributes of the resource, such as \"deployment.environment.name=production\".",
		},
	}}
}

// check refuses what cannot work.
func (c *Config) check(r *confparse.Report) {
	u, err := url.Parse(c.Endpoint)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Fragment != "":
		r.Errorf("endpoint", "endpoint must be a URL such as http://127.0.0.1:4318/v1/traces")
		return
	case u.User != nil:
		r.Errorf("endpoint", "endpoint must have no account in it; use token_file")
	case c.TokenFile != "" && u.Scheme == "http" && !isLoopback(u.Hostname()):
		r.Errorf("token_file", "a token goes by https alone, or to a loopback address")
	}
	if c.TokenHeader == "" || strings.ContainsFunc(c.TokenHeader, func(c rune) bool { return !isTokenChar(c) }) {
		r.Errorf("token_header", "%q is no name of a field of HTTP", c.TokenHeader)
	}
	if c.ServiceName == "" {
		r.Errorf("service_name", "service_name must not be empty")
	}
	for _, a := range c.Attributes {
		if key, value, ok := strings.Cut(a, "="); !ok || key == "" || value == "" || len(a) > textMax {
			r.Errorf("attributes", "%q is not key=value of at most %d bytes", a, textMax)
		}
	}
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback() || host == "localhost"
}

// isTokenChar tells the characters of a token of HTTP that field names of collectors have.
func isTokenChar(c rune) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}

// shown is the endpoint as the log may have it: without a query, which may hold a secret.
func (c *Config) shown() string {
	u, err := url.Parse(c.Endpoint)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host + u.Path
}
