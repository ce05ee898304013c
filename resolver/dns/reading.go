package dns

import (
	"time"

	mdns "github.com/miekg/dns"
)

// reading collects what replies say about one question.
type reading struct {
	name   string // the name that is looked for now
	links  int    // aliases followed
	ttl    time.Duration
	secure bool
	status Status
	rrs    []mdns.RR
}

// read takes a reply with RCODE 0 or NXDOMAIN. It reports whether the question is
// answered; if not, r.name must be asked for.
func (r *reading) read(reply *mdns.Msg, qtype uint16) bool {
	r.secure = r.secure && reply.AuthenticatedData
	moved := r.follow(reply.Answer, qtype)
	for _, rr := range reply.Answer {
		if h := rr.Header(); h.Rrtype == qtype && h.Class == mdns.ClassINET &&
			len(r.rrs) < maxRecords && mdns.CanonicalName(h.Name) == r.name {
			r.rrs = append(r.rrs, rr)
			r.bound(h.Ttl, maxTTL)
		}
	}
	switch {
	case len(r.rrs) > 0:
		r.status = Success
		return true
	case reply.Rcode == mdns.RcodeNameError:
		r.status = NXDomain
	case moved && !hasSOA(reply):
		return false
	default:
		r.status = NoData
	}
	r.negative(reply)
	return true
}

// follow walks along the aliases in an answer section and reports whether there was
// one. Records of other names are ignored: they may be forged.
func (r *reading) follow(answer []mdns.RR, qtype uint16) (moved bool) {
	if qtype == mdns.TypeCNAME {
		return false
	}
	for r.links <= maxCNAME {
		next := aliasOf(answer, r.name)
		if next == nil {
			return moved
		}
		r.bound(next.Hdr.Ttl, maxTTL)
		r.name = mdns.CanonicalName(next.Target)
		r.links++
		moved = true
	}
	return moved
}

func aliasOf(answer []mdns.RR, name string) *mdns.CNAME {
	for _, rr := range answer {
		if c, ok := rr.(*mdns.CNAME); ok && mdns.CanonicalName(c.Hdr.Name) == name {
			return c
		}
	}
	return nil
}

func (r *reading) bound(ttl uint32, limit time.Duration) {
	r.ttl = min(r.ttl, time.Duration(ttl)*time.Second, limit)
}

// negative bounds the time to live by the zone's SOA record (RFC 2308 section 5).
// Without one the answer is not kept.
func (r *reading) negative(reply *mdns.Msg) {
	for _, rr := range reply.Ns {
		if soa, ok := rr.(*mdns.SOA); ok && mdns.IsSubDomain(soa.Hdr.Name, r.name) {
			r.bound(min(soa.Hdr.Ttl, soa.Minttl), maxNegative)
			return
		}
	}
	r.ttl = 0
}

func hasSOA(reply *mdns.Msg) bool {
	for _, rr := range reply.Ns {
		if rr.Header().Rrtype == mdns.TypeSOA {
			return true
		}
	}
	return false
}

func (r *reading) answer(trustAD bool) *Answer {
	return &Answer{
		Status: r.status, Name: r.name, RRs: r.rrs,
		Secure:  r.secure && trustAD,
		Expires: time.Now().Add(r.ttl),
	}
}
