package msg

import "strconv"

func itoa(n uint16) string { return strconv.Itoa(int(n)) }

// portBuffer lets a burst of questions wait without blocking the askers' loop.
const portBuffer = 128

// NewPorts makes the ports of one MTA.
func NewPorts() *Ports {
	p := &Ports{
		Admit:   NewPort[AdmitQ, AdmitA](portBuffer),
		Commit:  NewPort[CommitQ, CommitA](portBuffer),
		Check:   NewPort[CheckQ, Verdict](portBuffer),
		Route:   NewPort[RouteQ, RouteA](portBuffer),
		TLSA:    NewPort[TLSAQ, TLSAA](portBuffer),
		DNS:     NewPort[DNSQ, DNSA](portBuffer),
		Report:  NewPort[TLSReportQ, TLSReportA](portBuffer),
		Deliver: NewPort[DeliverQ, DeliverA](portBuffer),
		Lookup:  NewPort[LookupQ, LookupA](portBuffer),
		List:    NewPort[ListQ, ListA](1),
		Operate: NewPort[OperateQ, OperateA](1),
		Hosts:   NewPort[HostsQ, HostsA](1),
		Fsck:    NewPort[FsckQ, FsckA](1),
		Backup:  NewPort[BackupQ, BackupA](1),
		Status:  map[string]*Port[StatusQ, StatusA]{},
	}
	for _, m := range []string{"qmgr", "smar", "smtps", "smtpc"} {
		p.Status[m] = NewPort[StatusQ, StatusA](1)
	}
	return p
}
