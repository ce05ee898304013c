package mta

import (
	"net"
	"reflect"
	"slices"
	"strings"
	"testing"

	"meta1/mta/control"
)

// unit is what status tells of a unit; ok is false if there is none.
func (r *running) unit(name string) (u control.Module, ok bool) {
	r.t.Helper()
	s, err := r.control.Status(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	i := slices.IndexFunc(s.Modules, func(m control.Module) bool { return m.Name == name })
	if i < 0 {
		return u, false
	}
	return s.Modules[i], true
}

// TestReloadServers: sections smtps come with all their parts, take part in later reloads, and go.
func TestReloadServers(t *testing.T) {
	r := start(t, "a.test lmtp:\n", "")
	const another = `smtps MSA { id = 2; listen_socket { address = 127.0.0.1; port = 0; } flags = { access }; greeting = "first"; log_level = 12;
		policy_service grey { socket { type = unix; path = nothing; } } }`
	// One that has come, and the address of another that cannot be had.
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	r.reconfigure(another + ` smtps third { id = 3; daemon_address = { "` + other.Addr().String() + `" }; }`)
	r.refusesReload("address already in use")
	if _, there := r.unit("smtps MSA"); there {
		t.Error("a server of a reload that failed is there")
	}

	r.reconfigure(another)
	r.reload()
	address := r.address("smtps MSA")
	eventually(t, "the server is up", func() bool { u, ok := r.unit("smtps MSA"); return ok && u.State == "up" })
	first := r.talkTo(t, address)
	first.say("EHLO x", "mx.test")
	if _, metrics := r.get("/metrics"); !strings.Contains(metrics, `meta1_mta_module_up{module="smtps MSA"} 1`) || strings.Count(metrics, `server="MSA"`) == 0 {
		t.Errorf("metrics: %s", metrics)
	}
	if u, _ := r.unit("smtps MSA"); len(u.Values) == 0 {
		t.Error("the server tells nothing of itself")
	}

	r.reconfigure(strings.Replace(another, "id = 2;", "id = 2; message_size_max = 77;", 1))
	r.reload()
	r.talkTo(t, address).say("EHLO x", "SIZE 78848")
	first.say("EHLO x", "SIZE 10240000")

	// It goes: its session is told so, and another server goes on.
	r.reconfigure("")
	r.reload()
	first.hear("421 ")
	if !closed(t, "tcp", address) || !greets("tcp", r.address("smtps")) {
		t.Errorf("%q", r.listens())
	}
	eventually(t, "the server has gone", func() bool { _, there := r.unit("smtps MSA"); return !there })
	if _, metrics := r.get("/metrics"); strings.Contains(metrics, `"MSA"`) || strings.Contains(metrics, `"smtps MSA"`) {
		t.Error("there are metrics of a server that has gone")
	}

	// And comes again.
	r.reconfigure(another)
	r.reload()
	r.talkTo(t, r.address("smtps MSA")).say("EHLO x", "SIZE 10240000")
}

// TestReloadOrder: SMTPC knows a class of sessions before SMAR and QMGR can name it.
func TestReloadOrder(t *testing.T) {
	dir := shortDir(t)
	write(t, dir+"/meta1.conf", config(dir, ""))
	write(t, dir+"/mt", "a.test lmtp:\n")
	write(t, dir+"/access", "")
	m, _, _, _ := startBreakable(t, dir)
	write(t, dir+"/meta1.conf", strings.NewReplacer("qmgr {", "qmgr { AQ_entries_max = 5000;", "smar {", "smar { MX_max = 3;").Replace(
		config(dir, "smtpc { session_features x { flags = { -starttls }; } }")))
	m.reload.Lock()
	defer m.reload.Unlock()
	m.building.Lock()
	defer m.building.Unlock()
	p := &reloading{mta: m, ctx: t.Context(), now: m.current()}
	p.prepare()
	if len(p.errs) > 0 {
		t.Fatal(p.errs)
	}
	entries := func() any {
		a, err := m.ask(t.Context(), unitQueue)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range a.Values {
			if v.Name == "AQ_entries_max" {
				return v.Number
			}
		}
		return nil
	}
	state := func() []any { return []any{m.modules.client.Effective(), m.modules.resolver.Effective(), entries()} }
	var order []string
	before := state()
	for _, commit := range p.commits {
		commit()
		after := state()
		for i, name := range []string{unitClient, unitResolver, unitQueue} {
			if !reflect.DeepEqual(before[i], after[i]) {
				order = append(order, name)
			}
		}
		before = after
	}
	if !slices.Equal(order, []string{unitClient, unitResolver, unitQueue}) {
		t.Errorf("changed in the order %q", order)
	}
}
