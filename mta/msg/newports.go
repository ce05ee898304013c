package msg

import "strconv"

func itoa(n uint16) string { return strconv.Itoa(int(n)) }

// portBuffer lets a burst of questions wait without blocking the askers' loop.
const portBuffer = 128

// NewPorts makes the ports of one MTA.
func NewPorts() *Ports {
	p := &Ports{
		Admit:   NewPort[AdmitQ, AdmitA]("admit", portBuffer),
		Commit:  NewPort[CommitQ, CommitA]("commit", portBuffer),
		Check:   NewPort[CheckQ, Verdict]("check", portBuffer),
		Route:   NewPort[RouteQ, RouteA]("route", portBuffer),
		Deliver: NewPort[DeliverQ, DeliverA]("deliver", portBuffer),
		List:    NewPort[ListQ, ListA]("list", 1),
		Operate: NewPort[OperateQ, OperateA]("operate", 1),
		Hosts:   NewPort[HostsQ, HostsA]("hosts", 1),
		Fsck:    NewPort[FsckQ, FsckA]("fsck", 1),
		Status:  map[string]*Port[StatusQ, StatusA]{},
	}
	for _, m := range []string{"qmgr", "smar", "smtps", "smtpc"} {
		p.Status[m] = NewPort[StatusQ, StatusA]("status:"+m, 1)
	}
	return p
}
