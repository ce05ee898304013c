package ciphers

import (
	"crypto/tls"
	"strings"
)

// Options is what a list of OpenSSL's options says to Go.
type Options struct {
	Min, Max uint16 // versions of TLS
	NoTicket bool   // no session tickets
	// Unknown are words that OpenSSL does not know, Unsupported those that ask for what Go
	// does not do.
	Unknown     []string
	Unsupported []Unsupported
	// Wrong says why the versions that are left cannot be used; "" if they can.
	Wrong string
}

// Unsupported is a word that Go cannot obey, and why.
type Unsupported struct{ Word, Reason string }

// ParseOptions reads options as SSL_CTX_set_options(3) names them, SSL_OP_NO_TICKET or
// no_ticket, in any case of letters. - before a word (or ! or ~) takes it back: TLS 1.0 and
// 1.1 are off unless -no_TLSv1 and -no_TLSv1_1 say otherwise. SSL 2 and 3 do not exist in Go.
func ParseOptions(words []string) Options {
	o := Options{}
	off := map[uint16]bool{tls.VersionTLS10: true, tls.VersionTLS11: true}
	for _, word := range words {
		set, name := true, strings.TrimLeft(word, "+")
		if name != "" && strings.IndexByte("-!~", name[0]) >= 0 {
			set, name = false, name[1:]
		}
		name = strings.TrimPrefix(strings.TrimPrefix(strings.ToLower(name), "ssl_"), "op_")
		if v := versionOf(name); v != 0 {
			off[v] = set
			continue
		}
		if name == "no_ticket" {
			o.NoTicket = set
			continue
		}
		switch kind, why := behaviour(name); {
		case kind == unknown:
			o.Unknown = append(o.Unknown, word)
		case kind == always && !set, kind == never && set:
			o.Unsupported = append(o.Unsupported, Unsupported{word, why})
		}
	}
	o.versions(off)
	return o
}

func versionOf(name string) uint16 {
	switch name {
	case "no_tlsv1", "no_tlsv1_0":
		return tls.VersionTLS10
	case "no_tlsv1_1":
		return tls.VersionTLS11
	case "no_tlsv1_2":
		return tls.VersionTLS12
	case "no_tlsv1_3":
		return tls.VersionTLS13
	}
	return 0
}

// versions finds the first and the last version that are left. Go can leave none out
// between them.
func (o *Options) versions(off map[uint16]bool) {
	for v := uint16(tls.VersionTLS10); v <= tls.VersionTLS13; v++ {
		switch {
		case off[v]:
		case o.Min == 0:
			o.Min, o.Max = v, v
		case v > o.Max+1:
			o.Wrong = "Go cannot leave out " + Version(o.Max+1) + " between " + Version(o.Min) + " and " + Version(v)
			return
		default:
			o.Max = v
		}
	}
	if o.Min == 0 {
		o.Wrong = "they leave no version of TLS"
	}
}

// kind is what Go does about an option of OpenSSL.
type kind uint8

const (
	unknown kind = iota // OpenSSL has no such option
	always              // Go always behaves as if it were set
	never               // Go cannot do it
	nothing             // it is about a bug or a feature that Go's code does not have
)

// behaviour knows the options that are neither versions nor no_ticket.
func behaviour(name string) (k kind, why string) {
	switch name {
	case "cipher_server_preference", "serverpref":
		return always, "Go's server always chooses the cipher by its own order"
	case "no_compression":
		return always, "Go has no compression"
	case "no_sslv2", "no_sslv3":
		return always, "Go has no SSL before TLS 1.0"
	case "no_renegotiation":
		return always, "Go's server has no renegotiation"
	case "single_dh_use", "single_ecdh_use":
		return always, "Go makes a new key for each handshake"
	case "prioritize_chacha":
		return always, "Go prefers ChaCha20 whenever one side lacks AES in hardware"
	case "enable_middlebox_compat":
		return always, "Go always behaves so"
	case "no_dtlsv1", "no_dtlsv1_2":
		return always, "meta1 has no DTLS"
	case "no_extended_master_secret", "no_encrypt_then_mac":
		return never, "Go chooses the extensions of TLS itself"
	case "no_anti_replay":
		return never, "Go accepts no early data at all"
	case "allow_unsafe_legacy_renegotiation", "legacy_server_connect", "allow_client_renegotiation":
		return never, "Go has no renegotiation"
	case "allow_no_dhe_kex":
		return never, "Go's TLS 1.3 always has a Diffie-Hellman exchange"
	case "enable_ktls":
		return never, "Go has no TLS in the kernel"
	case "ignore_unexpected_eof":
		return never, "SMTP ends with QUIT, whatever TLS says"
	case "no_query_mtu", "cookie_exchange", "cisco_anyconnect", "no_tx_certificate_compression", "no_rx_certificate_compression",
		"all", "dont_insert_empty_fragments", "cryptopro_tlsext_bug", "tls_rollback_bug", "tlsext_padding", "safari_ecdhe_ecdsa_bug",
		"no_session_resumption_on_renegotiation", "ephemeral_rsa", "cleanse_plaintext",
		"microsoft_sess_id_bug", "microsoft_big_sslv3_buffer", "netscape_challenge_bug", "netscape_reuse_cipher_change_bug",
		"netscape_ca_dn_bug", "netscape_demo_cipher_change_bug", "sslref2_reuse_cert_type_bug", "ssleay_080_client_dh_bug",
		"tls_d5_bug", "tls_block_padding_bug", "msie_sslv2_rsa_padding", "pkcs1_check_1", "pkcs1_check_2":
		return nothing, ""
	}
	return unknown, ""
}
