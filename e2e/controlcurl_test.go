package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"meta1/mta/tlsconf/tlstest"
)

// TestControlCurl asks the API over TLS with real curl, as docs/control.md says: with tokens, with a certificate of
// an authority that is trusted, and with one that is known by its fingerprint.
func TestControlCurl(t *testing.T) {
	t.Parallel()
	dir, addr := testDir(t), freeAddr(t)
	ca, stranger := tlstest.Root(t, "Admins"), tlstest.Root(t, "Somebody")
	caFile := dir + "/admins.pem"
	tlstest.WriteFile(t, caFile, ca.PEM(), 0o644)
	cert, key := ca.Issue(t, tlstest.Spec{CN: "mta.test", Names: []string{"mta.test"}}).Write(t, dir, "mx")
	client := func(by *tlstest.Cert, cn, name string) []string {
		c, k := by.Issue(t, tlstest.Spec{CN: cn, Names: []string{cn}}).Write(t, dir, name)
		return []string{"--cert", c, "--key", k}
	}
	monitor := client(ca, "monitor", "monitor")
	other := client(ca, "other", "other")
	forged := client(stranger, "monitor", "forged")
	admin := client(stranger, "admin", "admin")
	block, _ := pem.Decode([]byte(readFile(t, admin[1])))
	sum := sha256.Sum256(block.Bytes)
	writeFile(t, dir+"/control.token", changeToken+"\n")
	writeFile(t, dir+"/console.token", readToken+"\n")
	ownFiles(t, dir)
	m := run(t, settings{global: fmt.Sprintf(`control { http { address = 127.0.0.1; port = %s; token_file = "%[2]s/control.token"; read_token_file = "%[2]s/console.token";
  change_certificates = { %[3]q }; read_certificates = { monitor }; tls { cert_file = %[4]q; key_file = %[5]q; CAcert_file = %[6]q; } } }`,
		port(t, addr), dir, hex.EncodeToString(sum[:]), cert, key, caFile)})
	defer m.stop()
	curl := func(method, path string, args ...string) (status, body string) {
		t.Helper()
		args = append([]string{
			"--silent", "--show-error", "--max-time", "60", "--cacert", caFile, "--resolve", "mta.test:" + port(t, addr) + ":127.0.0.1",
			"--write-out", "\n%{http_code}", "--request", method,
		}, args...)
		if method == "POST" {
			args = append(args, "--header", "Content-Type: application/json", "--data", "{}")
		}
		out, err := output(exec.Command("curl", append(args, "https://mta.test:"+port(t, addr)+path)...))
		if err != nil {
			return err.Error(), out
		}
		end := strings.LastIndexByte(out, '\n')
		return out[end+1:], out[:end]
	}
	token := func(s string) []string { return []string{"--header", "Authorization: Bearer " + s} }
	for _, c := range []struct {
		who          string
		args         []string
		read, change string
	}{
		{"the token that may change", token(changeToken), "200", "200"},
		{"the token that may ask", token(readToken), "200", "403"},
		{"a wrong token", token("wrong-0123456789-wrong"), "401", "401"},
		{"nobody", nil, "401", "401"},
		{"a certificate by its name", monitor, "200", "403"},
		{"a certificate by its fingerprint", admin, "200", "200"},
		{"a trusted certificate of another name", other, "401", "401"},
		{"the right name by an authority of its own", forged, "401", "401"},
	} {
		status, body := curl("GET", "/queue/summary", c.args...)
		if status != c.read || status == "200" && !json.Valid([]byte(body)) {
			t.Errorf("%s asks: %s %s", c.who, status, body)
		}
		if status, body = curl("POST", "/reload", c.args...); status != c.change {
			t.Errorf("%s changes: %s %s", c.who, status, body)
		}
	}
	if out, err := output(exec.Command("curl", append(token(readToken), "--silent", "--max-time", "60", "http://"+addr+"/queue/summary")...)); err == nil && strings.Contains(out, "recipients") {
		t.Errorf("without TLS: %s", out)
	}
	if log := readFile(t, m.log); strings.Contains(log, "0123456789") || !strings.Contains(log, "control request refused") {
		t.Error("the log tells a token, or does not tell of refusals")
	}
}
