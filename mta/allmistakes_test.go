package mta

import (
	"strings"
	"testing"
)

// TestAllMistakes: a configuration with a mistake of each kind, in several modules, has all of them told at once, by
// a reload as by a check, and none that only follows from another.
func TestAllMistakes(t *testing.T) {
	r := start(t, "a.test lmtp:\n", "")
	file := r.dir + "/meta1.conf"
	write(t, r.dir+"/mt", "b.test nonsense:x:y:z\n")
	write(t, file, `hostname = mx.test; working_directory = "`+r.dir+`/spool"; allow_root = true;
qmgr { AQ_entries_max = lots; }
smar {
  mailertable { file = mt; }
  access_map { name = nowhere; }
  map broken { type = hash; file = "missing.db"; }
}
smtpc { IO_timeut = 3s; tls { CAcert_file = "noca.pem"; } }
smtps {
  listen_socket { address = 127.0.0.1; port = 0; }
  tls { cert_file = "nocert.pem"; key_file = "nokey.pem"; }
}
`)
	want := []string{"meta1.conf:2:", "meta1.conf:5:", "missing.db", "meta1.conf:8:9:", "noca.pem does not exist", "nocert.pem does not exist", "nokey.pem does not exist", "mt:1:"}
	report, err := r.control.Reload(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, checked := CheckAll(t.Context(), file)
	if checked == nil {
		t.Fatal("the check finds nothing")
	}
	for by, told := range map[string]string{"a reload": strings.Join(report.Errors, "\n"), "a check": checked.Error()} {
		for _, w := range want {
			if !strings.Contains(told, w) {
				t.Errorf("%s does not tell %s:\n%s", by, w, told)
			}
		}
		if n := strings.Count(told, "error: "); n != 8 {
			t.Errorf("%s tells %d mistakes:\n%s", by, n, told)
		}
	}
	if n := report.Generation; n != 1 {
		t.Errorf("generation %d", n)
	}
}
