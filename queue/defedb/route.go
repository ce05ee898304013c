package defedb

import (
	"encoding/binary"
	"net/netip"
	"time"

	"meta1/mta/msg"
)

const (
	// RouteHopsMax is the most hops of a route that is stored: far more than are ever
	// tried. A longer route is asked for again.
	RouteHopsMax = 64
	// nameMax bounds a host name and the path of a socket in a stored route.
	nameMax = 4096
)

// Route is the route of a recipient as it was found at Asked. It may be used until
// Expires and never longer (README 7.2).
type Route struct {
	Hops    []msg.Hop
	Secure  bool // DNSSEC validated it
	Asked   time.Time
	Expires time.Time
}

// Holds tells whether the route may be used at now. One that was asked for later than
// now is of a clock that went back.
func (r *Route) Holds(now time.Time) bool {
	return r != nil && !now.Before(r.Asked) && now.Before(r.Expires)
}

// Flags of a stored hop.
const (
	hopLMTP = 1 << iota
	hopSocket
)

func appendRoute(b []byte, r *Route) []byte {
	var secure byte
	if r.Secure {
		secure = 1
	}
	b = append(b, secure)
	b = append(append(b, timeBytes(r.Asked)...), timeBytes(r.Expires)...)
	b = binary.AppendUvarint(b, uint64(len(r.Hops)))
	for i := range r.Hops {
		b = appendHop(b, &r.Hops[i])
	}
	return b
}

func appendHop(b []byte, h *msg.Hop) []byte {
	var flags byte
	if h.Protocol == msg.ProtoLMTP {
		flags |= hopLMTP
	}
	addr, _ := h.Addr.MarshalBinary() // never fails
	if h.Socket != "" {
		flags |= hopSocket
		addr = []byte(h.Socket)
	}
	b = append(binary.AppendUvarint(append(b, flags), uint64(len(addr))), addr...)
	return append(binary.AppendUvarint(b, uint64(len(h.Host))), h.Host...)
}

// storable tells whether a route can be written so that decodeRoute reads it.
func (r *Route) storable() bool {
	if r == nil || len(r.Hops) == 0 || len(r.Hops) > RouteHopsMax {
		return false
	}
	for i := range r.Hops {
		if len(r.Hops[i].Host) > nameMax || len(r.Hops[i].Socket) > nameMax {
			return false
		}
	}
	return true
}

// decodeRoute takes a route off the front of v and returns the rest.
func decodeRoute(v []byte) (*Route, []byte, error) {
	if len(v) < 17 {
		return nil, nil, errShort
	}
	r := &Route{Secure: v[0] != 0, Asked: readTime(v[1:]), Expires: readTime(v[9:])}
	n, used := binary.Uvarint(v[17:])
	if used <= 0 || n == 0 || n > RouteHopsMax {
		return nil, nil, errShort
	}
	v = v[17+used:]
	r.Hops = make([]msg.Hop, n)
	for i := range r.Hops {
		var err error
		if v, err = decodeHop(v, &r.Hops[i]); err != nil {
			return nil, nil, err
		}
	}
	return r, v, nil
}

func decodeHop(v []byte, h *msg.Hop) (rest []byte, err error) {
	if len(v) == 0 {
		return nil, errShort
	}
	flags := v[0]
	if flags&hopLMTP != 0 {
		h.Protocol = msg.ProtoLMTP
	}
	addr, v, err := decodeName(v[1:])
	if err != nil {
		return nil, err
	}
	if flags&hopSocket != 0 {
		h.Socket = string(addr)
	} else if err := h.Addr.UnmarshalBinary(addr); err != nil {
		h.Addr = netip.AddrPort{}
		return nil, err
	}
	host, v, err := decodeName(v)
	h.Host = string(host)
	return v, err
}

func decodeName(v []byte) (name, rest []byte, err error) {
	l, n := binary.Uvarint(v)
	if n <= 0 || l > nameMax || l > uint64(len(v)-n) {
		return nil, nil, errShort
	}
	return v[n : n+int(l)], v[n+int(l):], nil
}

// readTime reads what timeBytes wrote, which is never before 1970.
func readTime(v []byte) time.Time {
	return time.Unix(0, max(int64(binary.BigEndian.Uint64(v)), 0))
}
