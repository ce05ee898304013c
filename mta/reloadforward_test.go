package mta

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
)

// TestReloadForwarding: sections srs, dmarc_reports and traces come, change and go, and a reload that fails
// changes none of them.
func TestReloadForwarding(t *testing.T) {
	r := start(t, "a.test lmtp:\n", "")
	var spans atomic.Int64
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		spans.Add(int64(strings.Count(string(body), "spanId")))
	}))
	defer collector.Close()
	write(t, r.dir+"/secrets", "a secret that is long enough\n")
	if err := os.Chmod(r.dir+"/secrets", 0o600); err != nil {
		t.Fatal(err)
	}
	senders := `mailertable { file = mt; } srs { domain = "srs.test"; secret_file = "` + r.dir + `/secrets"; }`
	reports := `8bitmime }; authentication { dmarc_reports { organization = "ours"; } };`
	traces := `traces { endpoint = "` + collector.URL + `"; }`
	const forged = "SRS0=abcd=AB=sender.example=u@srs.test"
	state := func(srs string, collects bool) {
		t.Helper()
		if reply := r.offer("smtps", "127.0.0.1", "x@a.test", forged); !strings.Contains(reply, srs) {
			t.Errorf("%q, want %q", reply, srs)
		}
		if _, err := r.control.DMARCReports(t.Context(), ""); (err == nil) != collects {
			t.Errorf("reports about DMARC: %v", err)
		}
	}
	const before = "250 " // it is an address as any other
	state(before, false)

	r.reconfigure(traces+` control { http { port = 0; token_file = "`+r.dir+`/nothing"; } }`, "mailertable { file = mt; }", senders, "8bitmime };", reports)
	r.refusesReload("nothing")
	state(before, false)

	r.reconfigure(traces, "mailertable { file = mt; }", senders, "8bitmime };", reports)
	r.reload()
	state("forged", true)
	eventually(t, "spans", func() bool {
		_ = r.offer("smtps", "127.0.0.1", "x@a.test", "y@a.test")
		return spans.Load() > 0
	})

	r.reconfigure("")
	r.reload()
	state(before, true) // what was counted is sent yet
}

// TestReloadSeals: section ARC_sealing comes, changes its key, and goes.
func TestReloadSeals(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl makes the key")
	}
	r := start(t, "a.test lmtp:\n", "")
	if out, err := exec.Command(openssl, "genpkey", "-algorithm", "ed25519", "-out", r.dir+"/key").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, key := range []string{"key", "missing", "key"} {
		r.reconfigure("", "8bitmime };", `8bitmime }; ARC_sealing { seal { keyfile = "`+r.dir+"/"+key+`"; domain = "a.test"; selector = "s"; } };`)
		if key == "missing" {
			r.refusesReload("missing")
			continue
		}
		r.reload()
	}
	r.reconfigure("")
	r.reload()
}
