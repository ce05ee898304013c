package msg

import (
	"sync/atomic"

	"meta1/mta/smtp"
)

// DestHandover ends the name of the destination of mail that is handed over to another MTA.
const DestHandover = "/handover"

// Handover says whether the mail of the queue goes to another MTA, whatever its own route is, because an
// operator drains this one. It outlives the modules. The zero Handover is off. Any goroutine may use it.
type Handover struct{ via atomic.Pointer[string] }

// Set has mail handed over to where the right hand side of a mailertable leads; "" ends that. Routes that
// were looked up before stay as they are: OpReroute has them looked up anew.
func (h *Handover) Set(via string) { h.via.Store(&via) }

// Via is the right hand side, "" if nothing is handed over.
func (h *Handover) Via() string {
	if v := h.via.Load(); v != nil {
		return *v
	}
	return ""
}

// Kept is a reply to mail that is handed over: a permanent refusal is a temporary one, because it says
// that the other MTA does not take this mail, not that it cannot be delivered.
func Kept(r smtp.Reply) smtp.Reply {
	if !r.Permanent() {
		return r
	}
	r.Code -= 100
	if r.Enhanced[0] == 5 {
		r.Enhanced[0] = 4
	}
	return r
}
