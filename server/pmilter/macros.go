package pmilter

import (
	"strings"

	wire "meta1/pmilter"
)

// Macros gives the value of a macro by the name that Sendmail's milters have for it, such as
// "j" or "{client_addr}"; "" if it has none now.
type Macros func(name string) string

// SeID is the name of the macro PMM_SEID, for which milters have none.
const SeID = "{seid}"

// milterName is the name of a macro for Macros; "" for one that is not known.
func milterName(m wire.Macro) string {
	switch m {
	case wire.MacroSrvHostname:
		return "j"
	case wire.MacroSeID:
		return SeID
	case wire.MacroMailTAID:
		return "i"
	case wire.MacroDotMsgID:
		return "{msg_id}"
	case wire.MacroTLSCipherSuite:
		return "{cipher}"
	case wire.MacroTLSCipherBits, wire.MacroTLSAlgBits:
		return "{cipher_bits}"
	case wire.MacroTLSVrfy:
		return "{verify}"
	case wire.MacroTLSCertSubject, wire.MacroTLSCertIssuer, wire.MacroTLSCNSubject, wire.MacroTLSCNIssuer:
		return "{" + strings.TrimPrefix(m.String(), "tls_") + "}"
	case wire.MacroVersion:
		return "v"
	case wire.MacroProtocol:
		return "r"
	case wire.MacroTLSVersion, wire.MacroClientResolve, wire.MacroAuthType, wire.MacroAuthAuthen, wire.MacroAuthAuthor,
		wire.MacroDaemonName, wire.MacroDaemonAddr, wire.MacroDaemonPort, wire.MacroClientPtr:
		return "{" + m.String() + "}"
	}
	return ""
}

// values are the macros of a command that the program wants and that have a value.
func (c *conn) values(f wire.FrameType, macros Macros) []wire.MacroValue {
	stage, ok := f.Stage()
	if !ok || macros == nil {
		return nil
	}
	var list []wire.MacroValue
	for _, m := range c.agreed.Macros[stage] {
		name := milterName(m)
		if name == "" {
			continue
		}
		if v := macros(name); v != "" {
			list = append(list, wire.MacroValue{Macro: m, Value: v})
		}
	}
	return list
}
