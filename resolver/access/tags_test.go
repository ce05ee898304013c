package access

import (
	"strings"
	"testing"
)

// TestCheckEntry has README's entries, the mistakes that used to vanish, and those that
// used to fail at the first mail.
func TestCheckEntry(t *testing.T) {
	tags := Tags("dnsblex")
	for _, entry := range []string{
		"cltresolve:tempptr error:451 4.7.1 reverse lookup failed",
		"mxbadip:127. error:551 5.7.1 Bad IP address in MX/A list",
		"from:@spammer.domain error:551 5.7.1 No spammers",
		"from:@.spammer.domain error:551 5.7.1 No spammers in subdomains either",
		"to:root error:551 5.7.1 No mail to root",
		"to:abuse quick:ok",
		"TO:abuse QUICK:OK",
		"cltname:spammer.domain. quick:error:551 5.7.1 No mail from spammers",
		"to:@primary.domain relay",
		"cltaddr:10. relay",
		"cltaddr:2001:db8: reject",
		"cltaddr:2001:db8 reject", // createmap takes the colon
		"cltaddr:2001:db8:0:0:0:0:0:1 ok",
		"cltaddr:127.0.0.1 quick:relay",
		"dnsblex:127. reject",
		"dnsblex:temp cont",
		"ehlo:.example.org reject",
		"certissuer:/CN=Claus+20Assmann cont",
		"protectedrcpt:list1@local.dom list:<list1@local.dom>",
		"protectedrcpt:list3 from:<moderator3@local.dom> cltaddr:10.1.2.3 cltaddr:10. temp:",
		"smtps_rcpt_conf:a@b flags = greylisting;",
		"smtps_session_conf:10. session_feature=notls;",
		`smtpc_rcpt_conf:@a.b tls_requirements { cert_issuer="/C=US"; }`,
	} {
		key, value, _ := strings.Cut(entry, " ")
		if err := CheckEntry(tags, key, value); err != nil {
			t.Errorf("%s: %v", entry, err)
		}
	}
	for entry, want := range map[string]string{
		"to:bob@example.org REJCT":               `"REJCT" is no right hand side of to:, expected relay, ok, reject, error:XYZ A.B.C text, discard, cont; did you mean reject?`,
		"from:x eror:550 no":                     "did you mean error:?",
		"cltadr:127. relay":                      "did you mean cltaddr:?",
		"from:a@b error:999 x":                   "reply code",
		"bad: one two":                           "none of the tags",
		"bad one":                                "none of the tags",
		"dnsbly:127. reject":                     "none of the tags",
		"from:a@b relay":                         "relay is no right hand side of from:",
		"mxbadip:1. relay":                       "relay is no right hand side of mxbadip:",
		"cltaddr: quick:relay":                   "needs an IP address",
		"cltaddr quick:relay":                    "needs an IP address",
		"cltaddr:10 relay":                       "a net ends with a dot",
		"cltaddr:2001:db8::1 relay":              "it is written 2001:db8:0:0:0:0:0:1",
		"cltaddr:10.0.0.0/8 relay":               "not an IP address",
		"cltaddr:010. relay":                     "not an IP address",
		"cltname:example.org relay":              "ends with a dot",
		"cltresolve:tempx reject":                "did you mean tempa?",
		"from:.example.org reject":               "have an @",
		"to:a@b error:550 4.7.1 x":               "does not fit",
		"certsubject:x ok":                       "expected relay",
		"protectedrcpt:a form:b":                 "did you mean from:?",
		"protectedrcpt:a from:":                  "behind its colon",
		"smtps_rcpt_conf:a@b flags = greylistng": "did you mean greylisting?",
		"smtps_rcpt_conf:a@b source = x":         "source has no effect here, expected cont, flags = value;",
		"smtps_session_conf:1. sesion=x":         "unknown option",
		"to:a@b session_feature=x":               "no right hand side",
	} {
		key, value, _ := strings.Cut(entry, " ")
		if err := CheckEntry(tags, key, value); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", entry, err, want)
		}
	}
}

// TestTagsAreDescribed: the manual of maps is made of the tags.
func TestTagsAreDescribed(t *testing.T) {
	for _, tag := range Tags("list") {
		if !strings.HasSuffix(tag.Name, ":") || tag.Keys == "" || tag.Readme == "" || !strings.HasSuffix(tag.Doc, ".") || len(tag.Words) == 0 {
			t.Errorf("%+v", tag)
		}
	}
}
