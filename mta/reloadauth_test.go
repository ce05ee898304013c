package mta

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"

	"meta1/mta/tlsconf/tlstest"
	"meta1/server/auth"
)

// serveMilter serves a milter that refuses recipients whose address begins with "spam", and returns its port.
func serveMilter(t *testing.T) (port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for {
					var size [4]byte
					if _, err := io.ReadFull(conn, size[:]); err != nil {
						return
					}
					packet := make([]byte, binary.BigEndian.Uint32(size[:]))
					if _, err := io.ReadFull(conn, packet); err != nil {
						return
					}
					reply := "\x00\x00\x00\x01c"
					switch {
					case packet[0] == 'O':
						reply = "\x00\x00\x00\x0dO\x00\x00\x00\x06\x00\x00\x01\xff\x00\x00\x00\x00"
					case strings.ContainsRune("DAK", rune(packet[0])):
						continue
					case packet[0] == 'R' && bytes.HasPrefix(packet[1:], []byte("<spam")):
						reply = "\x00\x00\x00\x01r"
					}
					if _, err := io.WriteString(conn, reply); err != nil {
						return
					}
				}
			}()
		}
	}()
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port
}

// TestReloadServerWithAuth: a section smtps that comes by a reload has TLS, AUTH and a milter, and takes part in later reloads with
// them: passwords and filters are then those of the later one.
func TestReloadServerWithAuth(t *testing.T) {
	r := start(t, ". lmtp:\n", "")
	certFile, keyFile := tlstest.SelfSigned(t, tlstest.Spec{CN: "mx.test"}).Write(t, r.dir, "msa")
	secret := func(password string) string {
		s, err := auth.MakeSecret(rand.Reader, password, "scram-sha-256")
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	write(t, r.dir+"/access", "")
	write(t, r.dir+"/users", "jane\t"+secret("rabbit hole")+"\n")
	write(t, r.dir+"/others", "jane\t"+secret("looking glass")+"\n")
	msa := `smtps MSA { id = 2; listen_socket { address = 127.0.0.1; port = 0; } flags = { access };
		tls { cert_file = "` + certFile + `"; key_file = "` + keyFile + `"; }
		auth { password_map = users; trusted_mechanisms = { PLAIN }; }
		milter refuses { socket { type = inet; address = 127.0.0.1; port = ` + serveMilter(t) + `; } flags = { tempfail }; } }`
	maps := []string{"smar {", `smar { map users { type = text; file = "users"; } map others { type = text; file = "others"; }`}
	try := func(password, to, want string) {
		t.Helper()
		account, got := "jane", ""
		if password == "" {
			account = ""
		}
		if err := r.submit("smtps MSA", account, password, "jane@example.org", to); err != nil {
			got = err.Error()
		}
		if !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("%q to %s: %q, want %q", password, to, got, want)
		}
	}
	const world, spam = "someone@elsewhere.example", "spam@elsewhere.example"
	r.reconfigure(msa, maps...)
	r.reload()
	r.address("smtps MSA")
	try("rabbit hole", world, "")
	try("rabbit hole", spam, "550")
	try("looking glass", world, "535")
	if _, metrics := r.get("/metrics"); !strings.Contains(metrics, `meta1_smtps_milter_verdicts_total{milter="refuses",server="MSA"`) {
		t.Error("there are no metrics of the milter")
	}

	from := strings.Index(msa, "milter refuses")
	r.reconfigure(strings.Replace(msa[:from], "password_map = users", "password_map = others", 1)+"}", maps...)
	r.reload()
	try("rabbit hole", world, "535")
	try("looking glass", spam, "")
	eventually(t, "the metrics of a milter that has gone have gone, too", func() bool {
		_, metrics := r.get("/metrics")
		return !strings.Contains(metrics, `milter="refuses"`)
	})
}
