package mta

import (
	"os"
	"strings"
	"testing"
)

// TestLoginMaps: "config check" tells which entries and tokens cannot be used, and nothing of
// what is in them.
func TestLoginMaps(t *testing.T) {
	dir := shortDir(t)
	write(t, dir+"/accounts", "good.example jane:hunter2\nbad.example hunter2\nfile.example jane:{TOKEN_FILE}"+dir+"/mine\nnone.example -\n")
	write(t, dir+"/mt", "")
	write(t, dir+"/access", "")
	write(t, dir+"/mine", "hunter2 hunter2")
	write(t, dir+"/token", "{\"access_token\": \"hunter2\"}")
	if err := os.Chmod(dir+"/accounts", 0o600); err != nil {
		t.Fatal(err)
	}
	conf := strings.ReplaceAll(config(dir, `smtpc { auth { password_map = accounts; token_file = gone; mechanisms = { PLAIN, NTLM }; }
		session_features a { auth { password_map = accounts; token_file = token; tls = none; } } }`), "smar {", `smar { map accounts { type = text; file = "`+dir+`/accounts"; }`)
	write(t, dir+"/meta1.conf", conf)
	r, err := CheckAll(t.Context(), dir+"/meta1.conf")
	if err != nil {
		t.Error(err)
	}
	told := ""
	for _, w := range r.Warnings {
		told += "\n" + w.Message
	}
	for _, want := range []string{
		dir + "/mine cannot be used: the token has white space", dir + "/gone cannot be used: ", "mechanism \"NTLM\" is not spoken here",
		"everybody may read the token in " + dir + "/token (mode 0644)", "passwords may be sent without TLS",
	} {
		if !strings.Contains(told, want) {
			t.Errorf("it is not told: %s", want)
		}
	}
	if strings.Contains(told, "hunter2") {
		t.Error("a password is told")
	}
	if t.Failed() {
		t.Log(told)
	}
	write(t, dir+"/accounts", "bad.example hunter2\nbad2.example :\n")
	write(t, dir+"/meta1.conf", strings.ReplaceAll(conf, "token_file = gone;", ""))
	if _, err = CheckAll(t.Context(), dir+"/meta1.conf"); err == nil || !strings.Contains(err.Error(), `"bad.example": no colon`) || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v", err)
	}
	write(t, dir+"/meta1.conf", strings.ReplaceAll(conf, "= accounts", "= nowhere"))
	if _, err = CheckAll(t.Context(), dir+"/meta1.conf"); err == nil || !strings.Contains(err.Error(), `map "nowhere" is not declared`) {
		t.Errorf("%v", err)
	}
}
