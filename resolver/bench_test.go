package resolver

import (
	"fmt"
	"testing"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// BenchmarkRouteByDNS gives a route whose DNS answers are in the cache: three hosts, 1,000
// domains in turn.
func BenchmarkRouteByDNS(b *testing.B) {
	const domains = 1000
	var zone []string
	for i := range domains {
		for j, host := range []string{"a", "b", "c"} {
			zone = append(zone, fmt.Sprintf("d%d.test. 3000 IN MX %d %s.mail.test.", i, j*10, host))
		}
	}
	zone = append(zone, "a.mail.test. 3000 IN A 10.0.0.1", "b.mail.test. 3000 IN A 10.0.0.2", "c.mail.test. 3000 IN A 10.0.0.3")
	s := serveZone(b, zone...)
	p, _ := start(b, "", withDNS(s))
	q := make([]msg.RouteQ, domains)
	for i := range q {
		q[i].Rcpt = smtp.Path{Local: "u", Domain: fmt.Sprintf("d%d.test", i)}
		if a, err := p.Route.Ask(b.Context(), q[i]); err != nil || len(a.Hops) != 3 {
			b.Fatal(a, err)
		}
	}
	asked := s.queries.Load()
	for i := 0; b.Loop(); i++ {
		if _, err := p.Route.Ask(b.Context(), q[i%domains]); err != nil {
			b.Fatal(err)
		}
	}
	if n := s.queries.Load() - asked; n > 0 {
		b.Errorf("%d queries", n)
	}
}
