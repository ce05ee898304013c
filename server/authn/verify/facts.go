package verify

import (
	"strings"

	"meta1/server/authn"
	"meta1/server/authn/spf"
)

// Fact is what is known under a name of docs/checks.md, which is a macro for milters, too: such as
// dkim_result. It is "" for what is not known, was not checked, or is no such name; m may be nil.
func (m *Mail) Fact(name string) string {
	if m == nil {
		return ""
	}
	switch name {
	case "spf_result":
		return word(m.SPF)
	case "spf_domain":
		if m.SPF != nil {
			return spf.Domain(m.SPF)
		}
	case "spf_helo_result":
		return word(m.Helo)
	case "dkim_domains":
		return strings.Join(m.signers(), " ")
	case "dmarc_domain", "dmarc_policy":
		results := authn.Of(m.Results, authn.DMARC) // one at most
		switch {
		case len(results) == 0:
		case name == "dmarc_domain":
			return results[0].Prop("header", "from")
		default:
			return results[0].Prop("policy", "dmarc")
		}
	case "iprev_result", "dkim_result", "dmarc_result", "arc_result":
		return authn.Word(m.Results, authn.Method(strings.TrimSuffix(name, "_result")))
	}
	return ""
}

func word(r *authn.Result) string {
	if r == nil {
		return ""
	}
	return r.Value
}

// signers are the domains whose signatures are good, each once. One that only tries DKIM is none.
func (m *Mail) signers() []string {
	var list []string
	seen := map[string]bool{}
	for i := range m.Signatures {
		if s := &m.Signatures[i]; s.Verdict == authn.Pass && !s.Test && !seen[s.Domain] {
			seen[s.Domain] = true
			list = append(list, s.Domain)
		}
	}
	return list
}

// Summary is one line for the log: the methods and their results.
func (m *Mail) Summary() string {
	if m == nil {
		return ""
	}
	return authn.Summary(m.Results)
}
