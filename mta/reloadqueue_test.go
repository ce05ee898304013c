package mta

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"meta1/confparse"
	"meta1/mta/limits"
	"meta1/mta/settings"
)

// TestReloadOfTheQueue: the running queue gets what the file says, as a fresh start would, but for what needs
// a restart; if the reload fails elsewhere it gets nothing; and an instance that is started again in place
// has what the last reload said. Which option does what is tested in package queue.
func TestReloadOfTheQueue(t *testing.T) {
	dir := shortDir(t)
	file := dir + "/meta1.conf"
	write(t, file, config(dir, ""))
	write(t, dir+"/mt", "a.test lmtp:\n")
	write(t, dir+"/access", "cltaddr:127. relay\n")
	m, broken, log, _ := startBreakable(t, dir)
	value := func(name string) int64 {
		t.Helper()
		a, err := m.ask(t.Context(), unitQueue)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range a.Values {
			if v.Name == name {
				return v.Number
			}
		}
		t.Fatalf("no value %s", name)
		return 0
	}
	change := func(qmgr string) {
		write(t, file, strings.Replace(config(dir, ""), "retry_delay_min = 1s; retry_delay_max = 1s;", qmgr, 1))
	}
	change(`AQ_entries_max = 5000; content_memory_max = 3MB; retry_delay_min = 2s; retry_delay_max = 3s; conf = qmgr_conf;
		queue_return { default = 1d; } IBDB { content_max = 5KB; size = 2MB; } smtpc { connections_max = 30; provider big { rate_max = 6; } }
		smtps { connections_max = 12; } DSN_handling { merge_delay_max = 5s; }`)
	write(t, dir+"/qmgr_conf", "nonsense: 1\n")
	if r := m.Reload(t.Context(), false); len(r.Errors) == 0 || value("AQ_entries_max") != 20000 {
		t.Errorf("with a bad map: %+v, %d entries", r, value("AQ_entries_max"))
	}
	write(t, dir+"/qmgr_conf", "smtpc_session_conf:192.0.2.1 provider=big;\n")
	r := m.Reload(t.Context(), false)
	if len(r.Errors) > 0 || strings.Join(paths(r.NeedRestart), " ") != "qmgr/IBDB/size" || len(r.Changed) != 11 {
		t.Errorf("%+v", r)
	}
	for _, c := range r.Changed {
		if c.Reload != confparse.AtOnce {
			t.Errorf("%+v", c)
		}
	}
	fresh, _, err := settings.Load(file, confparse.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fitOpenFiles(fresh, limits.OpenFiles); err != nil {
		t.Fatal(err)
	}
	fitMemory(fresh, limits.Memory(os.DirFS("/"), os.Getenv("GOMEMLIMIT")))
	want := fresh.Queue
	want.IBDB.Size = m.conf.Queue.IBDB.Size
	if now := m.current().conf.Queue; !reflect.DeepEqual(now, want) {
		t.Errorf("in effect is\n%+v\na start gives\n%+v", now, want)
	}
	inEffect := func() {
		t.Helper()
		if n, mem := value("AQ_entries_max"), value("content_memory_max"); n != 5000 || mem != 3<<20 {
			t.Errorf("the queue has %d entries and %d bytes of memory", n, mem)
		}
	}
	inEffect()
	before := restarts(m, unitQueue)
	broken[unitQueue] <- struct{}{}
	eventually(t, "qmgr is up again", func() bool { return restarts(m, unitQueue) == before+1 && m.Health(t.Context()).OK })
	inEffect()
	change("AQ_entries_max = 6000; retry_delay_min = 1s; retry_delay_max = 1s;")
	if r := m.Reload(t.Context(), false); len(r.Errors) > 0 || value("AQ_entries_max") != 6000 || value("content_memory_max") != m.conf.Queue.ContentMemory {
		t.Errorf("%+v\n%s", r, log)
	}
}
