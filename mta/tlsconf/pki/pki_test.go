package pki

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"meta1/mta/tlsconf/tlstest"
)

// rawName makes a distinguished name of pairs of an attribute's number and value.
func rawName(t *testing.T, pairs ...any) []byte {
	t.Helper()
	var name pkix.RDNSequence
	for i := 0; i < len(pairs); i += 2 {
		var id asn1.ObjectIdentifier
		for part := range strings.SplitSeq(pairs[i].(string), ".") {
			n, _ := new(big.Int).SetString(part, 10)
			id = append(id, int(n.Int64()))
		}
		name = append(name, pkix.RelativeDistinguishedNameSET{{Type: id, Value: pairs[i+1]}})
	}
	raw, err := asn1.Marshal(name)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

const (
	idCN, idC, idO = "2.5.4.3", "2.5.4.6", "2.5.4.10"
	idMail         = "1.2.840.113549.1.9.1"
)

// TestNames: README 3.10, item 24o.
func TestNames(t *testing.T) {
	long := strings.Repeat("x", 256)
	for _, tt := range []struct {
		raw               []byte
		line, cn, encoded string
	}{
		{
			rawName(t, idC, "US", "2.5.4.8", "Berkeley", "2.5.4.7", "Endmail Org", idO, "MTA", idCN, "Darth Mail (Cert)", idMail, "a@b.example"),
			"/C=US/ST=Berkeley/L=Endmail Org/O=MTA/CN=Darth Mail (Cert)/emailAddress=a@b.example", "Darth Mail (Cert)",
			"/C=US/ST=Berkeley/L=Endmail+20Org/O=MTA/CN=Darth+20Mail+20+28Cert+29/emailAddress=a@b.example",
		},
		{rawName(t, idCN, "a\x00b"), `/CN=a\x00b`, BadContainsNUL, `/CN=a\x00b`},
		{rawName(t, idCN, long), "/CN=" + long, BadTooLong, "/CN=" + long},
		{rawName(t, idCN, "a", idCN, "b"), "/CN=a/CN=b", BadUnknown, "/CN=a/CN=b"},
		{rawName(t, idO, "Müller"), `/O=M\xC3\xBCller`, "", `/O=M\xC3\xBCller`},
		{rawName(t, idCN, "a,\r\n\"<+>"), `/CN=a,\x0D\x0A"<\+>`, `a,\x0D\x0A"<+>`, `/CN=a,\x0D\x0A+22+3C\+2B+3E`},
		{rawName(t, idO, `x/CN=admin`, idO, `y\`, idC, "z"), `/O=x\/CN=admin/O=y\x5C/C=z`, "", `/O=x\/CN=admin/O=y\x5C/C=z`},
		{rawName(t, "1.2.3", "x"), "/1.2.3=x", "", "/1.2.3=x"},
		{rawName(t), "", "", ""},
		{rawName(t, idO, strings.Repeat("y", 1022)), BadTooLong, "", BadTooLong},
		{[]byte("nonsense"), BadUnknown, BadUnknown, BadUnknown},
		{append(rawName(t, idCN, "a"), 0), BadUnknown, BadUnknown, BadUnknown},
	} {
		if got := OneLine(tt.raw); got != tt.line || EncodeName(got) != tt.encoded {
			t.Errorf("%q as %q, want %q and %q", got, EncodeName(got), tt.line, tt.encoded)
		}
		if got := CommonName(tt.raw); got != tt.cn {
			t.Errorf("%s: CN %q, want %q", tt.line, got, tt.cn)
		}
	}
	if !IsBad(BadTooLong) || IsBad("BadCert") {
		t.Error("IsBad")
	}
}

// TestEncodeName has the examples of README 3.10, item 24o; what its conversion to text lost
// is restored.
func TestEncodeName(t *testing.T) {
	for name, want := range map[string]string{
		"/C=US/ST=Berkeley/L=Endmail Org/O=MTA/CN=Claus Assmann CA RSA 2007/": "/C=US/ST=Berkeley/L=Endmail+20Org/O=MTA/CN=Claus+20Assmann+20CA+20RSA+202007/",
		"/CN=Darth Mail (Cert)/": "/CN=Darth+20Mail+20+28Cert+29/",
		"a<b>\"+\x00\x7fé":       "a+3Cb+3E+22+2B+00+7F+C3+A9",
	} {
		if got := EncodeName(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// TestNamesLikeOpenSSL compares with what openssl prints.
func TestNamesLikeOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not here")
	}
	c := tlstest.SelfSigned(t, tlstest.Spec{Subject: &pkix.Name{
		Country: []string{"DE"}, Organization: []string{"Ä Org/Ltd"}, OrganizationalUnit: []string{"a+b", "c"}, CommonName: `x "y"`,
		Locality: []string{"L"}, Province: []string{"P"}, StreetAddress: []string{"S 1"}, PostalCode: []string{"123"}, SerialNumber: "7",
		ExtraNames: []pkix.AttributeTypeAndValue{
			{Type: asn1.ObjectIdentifier{2, 5, 4, 12}, Value: "title"},
			{Type: asn1.ObjectIdentifier{2, 5, 4, 42}, Value: "gn"},
			{Type: asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}, Value: "uid"},
			{Type: asn1.ObjectIdentifier{2, 5, 4, 97}, Value: "org"},
			{Type: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}, Value: "a@b"},
			{Type: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 60, 2, 1, 3}, Value: "DE"},
		},
	}})
	file := t.TempDir() + "/c.pem"
	if err := os.WriteFile(file, c.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("openssl", "x509", "-in", file, "-noout", "-subject", "-nameopt", "compat").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if want, got := strings.TrimSpace(strings.TrimPrefix(string(out), "subject=")), OneLine(c.RawSubject); got != want {
		t.Errorf("%s, openssl says %s", got, want)
	}
}

// TestPEM: what is read of files, and what is refused.
func TestPEM(t *testing.T) {
	ca := tlstest.Root(t, "Root")
	host := ca.Issue(t, tlstest.Spec{CN: "host"})
	broken := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})
	list, errs := Certificates(slices.Concat([]byte("# text\n"), host.PEM(), broken, host.KeyPEM(t), ca.PEM()))
	if len(list) != 2 || len(errs) != 1 || !strings.Contains(errs[0].Error(), "certificate 2") || list[1].Subject.CommonName != "Root" {
		t.Errorf("%d certificates, %v", len(list), errs)
	}
	rsa := ca.Issue(t, tlstest.Spec{CN: "rsa", RSA: true})
	for text, want := range map[string]string{
		string(host.KeyPEM(t)):                    "",
		string(rsa.PEM()) + string(rsa.KeyPEM(t)): "",
		"":                 "no private key in PEM",
		string(host.PEM()): "no private key in PEM",
		"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n":                                   "cannot be read",
		"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n":               "is encrypted",
		"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n": "is encrypted",
	} {
		_, err := PrivateKey([]byte(text))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%.40q: %v, want %s", text, err, want)
		}
	}
	if _, err := Pair([]*x509.Certificate{host.Certificate}, rsa.Key); err != ErrKeyMismatch {
		t.Errorf("another key: %v", err)
	}
	if pair, err := Pair([]*x509.Certificate{host.Certificate, ca.Certificate}, host.Key); err != nil || len(pair.Certificate) != 2 {
		t.Errorf("%v", err)
	}
	if err := CheckOrder([]*x509.Certificate{host.Certificate, ca.Certificate}); err != nil {
		t.Error(err)
	}
	if err := CheckOrder([]*x509.Certificate{host.Certificate, rsa.Certificate}); err == nil || !strings.Contains(err.Error(), "(/CN=host) is not signed by number 2 (/CN=rsa)") {
		t.Error(err)
	}
}

// TestVerify: chains, their length, and what was revoked.
func TestVerify(t *testing.T) {
	now := time.Now()
	root, other := tlstest.Root(t, "Root"), tlstest.Root(t, "Other")
	between := root.Issue(t, tlstest.Spec{CN: "Between", CA: true})
	impostor := tlstest.Root(t, "Between") // the same name, another key
	host := between.Issue(t, tlstest.Spec{CN: "host"})
	late := now.Add(24 * time.Hour)
	crls := func(texts ...[]byte) (all []*CRL) {
		list, errs := CRLs(slices.Concat(texts...))
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		return list
	}
	rootCRL, hostCRL := root.CRL(t, late), between.CRL(t, late)
	for name, tt := range map[string]struct {
		roots *tlstest.Cert
		peer  []*tlstest.Cert
		depth int
		crls  []*CRL // nil: not checked
		at    time.Time
		want  string
	}{
		"good":              {root, []*tlstest.Cert{host, between}, 9, nil, now, ""},
		"no CA":             {nil, []*tlstest.Cert{host, between}, 9, nil, now, "no CA is trusted"},
		"no certificate":    {root, nil, 9, nil, now, "no certificate"},
		"unknown":           {other, []*tlstest.Cert{host, between}, 9, nil, now, "no trusted CA has signed"},
		"incomplete":        {root, []*tlstest.Cert{host}, 9, nil, now, "no trusted CA has signed"},
		"impostor":          {root, []*tlstest.Cert{host, impostor}, 9, nil, now, "no trusted CA has signed"},
		"self-signed":       {other, []*tlstest.Cert{root}, 9, nil, now, "self-signed"},
		"deep enough":       {root, []*tlstest.Cert{host, between}, 1, nil, now, ""},
		"too deep":          {root, []*tlstest.Cert{host, between}, 0, nil, now, "1 CAs stand between"},
		"expired":           {root, []*tlstest.Cert{host, between}, 9, nil, now.Add(100 * 24 * time.Hour), "has expired"},
		"not yet":           {root, []*tlstest.Cert{host, between}, 9, nil, now.Add(-2 * time.Hour), "not yet valid"},
		"with CRLs":         {root, []*tlstest.Cert{host, between}, 9, crls(rootCRL, hostCRL), now, ""},
		"no CRL at all":     {root, []*tlstest.Cert{host, between}, 9, []*CRL{}, now, "the certificate: there is no CRL of its issuer"},
		"no CRL of the CA":  {root, []*tlstest.Cert{host, between}, 9, crls(hostCRL), now, "CA 1: there is no CRL of its issuer"},
		"revoked":           {root, []*tlstest.Cert{host, between}, 9, crls(rootCRL, between.CRL(t, late, host)), now, "the certificate: it was revoked at"},
		"CA revoked":        {root, []*tlstest.Cert{host, between}, 9, crls(root.CRL(t, late, host, between), hostCRL), now, "CA 1: it was revoked at"},
		"another revoked":   {root, []*tlstest.Cert{host, between}, 9, crls(root.CRL(t, late, host), between.CRL(t, late, other)), now, ""},
		"forged CRL":        {root, []*tlstest.Cert{host, between}, 9, crls(rootCRL, impostor.CRL(t, late, host)), now, "wrong signature"},
		"forged and real":   {root, []*tlstest.Cert{host, between}, 9, crls(rootCRL, impostor.CRL(t, late, host), hostCRL), now, ""},
		"expired CRL":       {root, []*tlstest.Cert{host, between}, 9, crls(rootCRL, between.CRL(t, now.Add(-time.Minute))), now, "has expired"},
		"old and new CRL":   {root, []*tlstest.Cert{host, between}, 9, crls(rootCRL, between.CRL(t, now.Add(-time.Minute)), hostCRL), now, ""},
		"revoked, long ago": {root, []*tlstest.Cert{host, between}, 9, crls(rootCRL, between.CRL(t, now.Add(-time.Minute), host), hostCRL), now, "it was revoked"},
		"CRL of the future": {root, []*tlstest.Cert{host, between}, 9, crls(rootCRL, between.CRL(t, now.Add(72*time.Hour))), now, "not yet valid"},
	} {
		t.Run(name, func(t *testing.T) {
			var roots, peer []*x509.Certificate
			if tt.roots != nil {
				roots = append(roots, tt.roots.Certificate)
			}
			for _, c := range tt.peer {
				peer = append(peer, c.Certificate)
			}
			chains, err := NewTrust(roots, tt.crls, tt.crls != nil, tt.depth).Verify(peer, x509.ExtKeyUsageServerAuth, tt.at)
			switch {
			case tt.want == "" && (err != nil || len(chains) != 1 || chains[0][len(chains[0])-1].Subject.CommonName != "Root"):
				t.Errorf("%v", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("%v, want %s", err, tt.want)
			}
		})
	}
}

// TestCRLs: lists that would be understood wrongly are refused.
func TestCRLs(t *testing.T) {
	ca := tlstest.Root(t, "Root")
	delta, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(2), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour),
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: []byte{2, 1, 1}}},
	}, ca.Certificate, ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	all, errs := CRLs(slices.Concat(ca.CRL(t, time.Unix(2e9, 0)), pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: delta}),
		pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: []byte("x")}), ca.PEM()))
	if len(all) != 1 || len(errs) != 2 || !strings.Contains(errs[0].Error(), "CRL 2: it has the critical extension 2.5.29.27") {
		t.Errorf("%d lists, %v", len(all), errs)
	}
	if c := all[0]; c.Issuer() != "/CN=Root" || !c.NextUpdate().Equal(time.Unix(2e9, 0)) || c.Expired(time.Unix(2e9, 0)) || !c.Expired(time.Unix(2e9+1, 0)) {
		t.Errorf("%s until %v", c.Issuer(), c.NextUpdate())
	}
}

// TestComplete: the way to the root is found, and loops end.
func TestComplete(t *testing.T) {
	root := tlstest.Root(t, "Root")
	a := root.Issue(t, tlstest.Spec{CN: "A", CA: true})
	b := a.Issue(t, tlstest.Spec{CN: "B", CA: true})
	host := b.Issue(t, tlstest.Spec{CN: "host"})
	cas := []*x509.Certificate{root.Certificate, a.Certificate, b.Certificate}
	chain := Complete([]*x509.Certificate{host.Certificate}, cas)
	if len(chain) != 3 || chain[1] != cas[2] || chain[2] != cas[1] {
		t.Errorf("%d certificates", len(chain))
	}
	if chain := Complete([]*x509.Certificate{root.Certificate}, cas); len(chain) != 1 {
		t.Errorf("%d certificates of a root", len(chain))
	}
}

// FuzzNames: whatever a peer's certificate has, what is shown is printable ASCII and bounded.
func FuzzNames(f *testing.F) {
	f.Add([]byte{0x30, 0x0c, 0x31, 0x0a, 0x30, 0x08, 0x06, 0x03, 0x55, 0x04, 0x03, 0x0c, 0x01, 0x00})
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, s := range []string{OneLine(raw), CommonName(raw), EncodeName(OneLine(raw))} {
			if strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c > '~' }) || len(s) > 3*maxName {
				t.Errorf("%q", s)
			}
		}
	})
}
