package tlsconf

import (
	"crypto/x509"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"meta1/mta/tlsconf/tlstest"
)

// TestCheck: what config check finds. want has one fault a line: its option, a mark for
// an error (!) or a warning (?), and the beginning or another part of its text.
func TestCheck(t *testing.T) {
	dir := t.TempDir()
	root, private := tlstest.Root(t, "Root"), tlstest.Root(t, "Private")
	between := root.Issue(t, tlstest.Spec{CN: "Between", CA: true})
	names := []string{"mx.example.org"}
	host := between.Issue(t, tlstest.Spec{CN: "host", Names: names})
	host.Write(t, dir, "host")
	between.Issue(t, tlstest.Spec{CN: "rsa", Names: names, RSA: true}).Write(t, dir, "rsa")
	between.Issue(t, tlstest.Spec{CN: "other", Names: []string{"other.example.org"}}).Write(t, dir, "other")
	between.Issue(t, tlstest.Spec{CN: "old", Names: names, To: time.Now().Add(-time.Minute)}).Write(t, dir, "old")
	between.Issue(t, tlstest.Spec{CN: "soon", Names: names, To: time.Now().Add(13 * 24 * time.Hour)}).Write(t, dir, "soon")
	between.Issue(t, tlstest.Spec{CN: "later", Names: names, From: time.Now().Add(time.Hour)}).Write(t, dir, "later")
	between.Issue(t, tlstest.Spec{CN: "client", Names: names, Usage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}).Write(t, dir, "client")
	private.Issue(t, tlstest.Spec{CN: "private", Names: names}).Write(t, dir, "private")
	tlstest.SelfSigned(t, tlstest.Spec{CN: "self", Names: names}).Write(t, dir, "self")
	put := func(name string, parts ...[]byte) { tlstest.WriteFile(t, dir+"/"+name, slices.Concat(parts...), 0o600) }
	put("leaf.pem", host.PEM())
	put("mixed.pem", host.PEM(), private.PEM())
	put("whole.pem", host.PEM(), between.PEM(), root.PEM())
	put("ca.pem", root.PEM())
	put("text.pem", []byte("no PEM"))
	put("odd.pem", []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), root.PEM())
	put("crl.pem", root.CRL(t, time.Now().Add(time.Hour)))
	put("oldcrl.pem", root.CRL(t, time.Now().Add(-time.Hour)))
	put("open.key", host.KeyPEM(t))
	if err := os.Chmod(dir+"/open.key", 0o604); err != nil {
		t.Fatal(err)
	}
	put("many.pem")
	var many [][]byte
	for range manyCAs + 1 {
		many = append(many, tlstest.Root(t, "CA").PEM())
	}
	put("many.pem", many...)
	for _, d := range []string{"cas", "empty"} {
		if err := os.Mkdir(dir+"/"+d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	put("cas/odd", []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), root.PEM())
	const good = "cert_file = host.pem; key_file = host.key; flags = { use_chain }; "
	const plain = "cert_file = host.pem; key_file = host.key; "
	known := x509.NewCertPool()
	known.AddCert(root.Certificate)
	for _, tt := range []struct {
		role       Role
		text, want string
	}{
		{Server, good, ""},
		{Server, "", " ? there is no cert_file: STARTTLS is not offered"},
		{Client, "", ""},
		{Server, "cert_file = rsa.pem; key_file = rsa.key; EC_cert_file = host.pem; EC_key_file = host.key; flags = { use_chain };", ""},
		{Server, "cert_file = host.pem;", "cert_file ! needs key_file"},
		{Server, "EC_key_file = host.key;", "EC_key_file ! needs EC_cert_file"},
		{Server, "cert_file = no.pem; key_file = no.key;", "cert_file ! no.pem does not exist\nkey_file ! no.key does not exist"},
		{Server, "cert_file = host.pem; key_file = rsa.key; flags = { use_chain };", "key_file ! rsa.key does not fit"},
		{Server, "cert_file = text.pem; key_file = host.key;", "cert_file ! has no certificate"},
		{Server, "cert_file = odd.pem; key_file = host.key;", "cert_file ! certificate 1"},
		{Server, "cert_file = host.pem; key_file = text.pem; flags = { use_chain };", "key_file ! no private key"},
		{Server, "EC_cert_file = rsa.pem; EC_key_file = rsa.key; flags = { use_chain };", "EC_cert_file ! not one on an elliptic curve"},
		{Server, plain, "cert_file ? of which only the first is sent: set the flag use_chain\ncert_file ? ends with /CN=host, which was signed by /CN=Between"},
		{Server, "cert_file = leaf.pem; key_file = host.key; flags = { use_chain };", "cert_file ? ends with /CN=host, which was signed by /CN=Between"},
		{Server, "cert_file = mixed.pem; key_file = host.key; flags = { use_chain };", "cert_file ? not in order: certificate 1 (/CN=host) is not signed by number 2 (/CN=Private)"},
		{Server, "cert_file = whole.pem; key_file = host.key; flags = { use_chain };", ""},
		{Server, "cert_file = private.pem; key_file = private.key; flags = { use_chain };", "cert_file ? signed by /CN=Private"},
		{Server, "cert_file = self.pem; key_file = self.key;", "cert_file ? is self-signed"},
		{Server, "cert_file = other.pem; key_file = other.key; flags = { use_chain };", "cert_file ? is not for mx.example.org, the name of this host, but for other.example.org, CN other"},
		{Client, "cert_file = other.pem; key_file = other.key; flags = { use_chain };", ""},
		{Server, good + "certificate { cert_file = other.pem; key_file = other.key; }", ""},
		{Server, good + "certificate { cert_file = other.pem; key_file = other.key; } certificate { cert_file = other.pem; key_file = no.key; }", "certificate#2/key_file ! no.key does not exist"},
		{Server, "cert_file = old.pem; key_file = old.key; flags = { use_chain };", "cert_file ? expired at"},
		{Server, "cert_file = soon.pem; key_file = soon.key; flags = { use_chain };", "cert_file ? expires at"},
		{Server, "cert_file = later.pem; key_file = later.key; flags = { use_chain };", "cert_file ? is not valid before"},
		{Server, "cert_file = client.pem; key_file = client.key; flags = { use_chain };", "cert_file ? is not one of a server"},
		{Server, "cert_file = host.pem; key_file = open.key; flags = { use_chain };", "key_file ? everybody may read the private key"},
		{Server, good + "CAcert_file = no.pem;", "CAcert_file ! no.pem does not exist"},
		{Server, good + "CAcert_file = text.pem;", "CAcert_file ! has no certificate"},
		{Server, good + "CAcert_file = odd.pem;", "CAcert_file ? certificate 1"},
		{Server, good + "CAlist_file = text.pem;", "CAlist_file ! has no certificate"},
		{Server, good + `CAlist_file = "";`, ""},
		{Server, good + "CAcert_directory = nowhere;", "CAcert_directory ! nowhere does not exist"},
		{Server, good + "CAcert_directory = empty;", "CAcert_directory ? has no certificate"},
		{Server, good + "CAcert_directory = cas;", "CAcert_directory ? odd in "},
		{Server, good + "CAcert_file = ca.pem; CRL_file = crl.pem;", ""},
		{Server, good + "CRL_file = crl.pem;", "CRL_file ? no CA is trusted"},
		{Server, good + "CAcert_file = ca.pem; CRL_file = oldcrl.pem;", "CRL_file ? the CRL of /CN=Root in"},
		{Server, good + "CAcert_file = ca.pem; CRL_file = ca.pem;", "CRL_file ! has no CRL"},
		{Server, good + "CAcert_file = ca.pem; CRL_directory = nowhere;", "CRL_directory ! nowhere does not exist"},
		{Server, good + "options = { no_TLSv1_4, -no_ticket, no_anti_replay };", "options ! OpenSSL has no option \"no_TLSv1_4\"\noptions ? no_anti_replay has no effect"},
		{Server, good + "options = { no_TLSv1_2, no_TLSv1_3 };", "options ! leave no version"},
		{Server, good + `CipherList = "HIGH:WRONG:DHE";`, "CipherList ? no cipher or group \"WRONG\"\nCipherList ? Go has nothing of \"DHE\""},
		{Server, good + `CipherList = "DHE";`, "CipherList ? Go has nothing\nCipherList ! leaves no cipher that Go has"},
		{Server, good + `CipherList = "aRSA";`, "CipherList ? leaves no cipher for the certificate in"},
		{Client, good + `CipherList = "aRSA";`, ""},
		{Server, good + "CipherSuites = TLS_AES_256_GCM_SHA384;", "CipherSuites ? Go lets nobody choose"},
		{Server, good + "EC_curve = { prime256v1, x448 };", "EC_curve ? does not have \"x448\""},
		{Server, good + "EC_curve = { curve9 };", "EC_curve ! no curve \"curve9\"\nEC_curve ! leaves no curve"},
		{Server, plain + "flags = { use_chain, allow_relaying_if_verified };", "allow_relaying_if_verified ? has no effect: no CA"},
		{Server, plain + "CAcert_file = ca.pem; flags = { use_chain, check_access_map_for_relaying, dont_request_cert };", "check_access_map_for_relaying ? has no effect: clients are not asked"},
		{Server, plain + "CAcert_file = many.pem; flags = { use_chain, allow_relaying_if_verified };", "allow_relaying_if_verified ? one of 11 CAs may relay"},
	} {
		got := Check(read(t, tt.role, dir, tt.text), CheckQ{
			Role: tt.role, Files: OS{}, Now: time.Now(), Hostname: "mx.example.org", Roots: known,
			Mode: func(path string) (fs.FileMode, error) {
				info, err := os.Stat(path)
				if err != nil {
					return 0, err
				}
				return info.Mode(), nil
			},
		})
		var want []string
		if tt.want != "" {
			want = strings.Split(tt.want, "\n")
		}
		ok := len(got) == len(want)
		for i := 0; ok && i < len(got); i++ {
			f := got[i]
			option, text, _ := strings.Cut(want[i], " ")
			ok = f.Option == option && f.Warning == strings.HasPrefix(text, "? ") && strings.Contains(f.Text, text[2:])
		}
		if !ok {
			t.Errorf("%s\nfinds %q\nwant  %q", tt.text, got, want)
		}
	}
}
