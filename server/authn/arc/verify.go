package arc

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"meta1/server/dkim"
)

// Result is what became of the chain of a message.
type Result struct {
	// Verdict is dkim.None, Pass or Fail, the words of RFC 8617 section 4.4; TempError if DNS gave
	// no answer, so that it is not known.
	Verdict dkim.Verdict
	Reason  string // why it is neither None nor Pass
	// Instance is that of the newest set, 0 without any. Until Verdict is Pass it may be forged.
	Instance int
	// OldestPass is the instance of the oldest set since which the message was not changed; 0 if it
	// was not changed since the first (RFC 8617 section 5.2, step 5). With Pass.
	OldestPass int
	// Sealers are d= of all seals from the first set to the newest, in lower case. With Pass.
	Sealers []string
	// Authenticated are the values of ARC-Authentication-Results behind i=, of all sets from the first to the newest: what
	// each sealer says of the message as it got it. With Pass; folded as they are.
	Authenticated []string
}

// Message is a message that was read to its end; *dkim.Content is one.
type Message interface {
	Header() (dkim.Header, error)
	Sum(dkim.Canon) []byte
}

// Chain are the ARC sets of one message. It is not safe for concurrent use.
type Chain struct {
	sets    []set
	highest int
	wrong   error // with the structure
	seals   []sealTags
	signed  []messageTags
}

// Bodies finds the sets of a header, and says in which forms Verify needs a hash of the body. It
// is what dkim.NewVerification or dkim.NewContent call.
func (c *Chain) Bodies(h dkim.Header) (forms []dkim.Canon) {
	c.sets, c.highest, c.wrong = collect(h)
	for i := range c.sets {
		seal, err := readSeal(c.sets[i].seal)
		if err == nil {
			err = checkCV(i+1, len(c.sets), seal.cv)
		}
		if err != nil {
			c.wrong = fmt.Errorf("seal %d: %w", i+1, err)
			return nil
		}
		m, err := readMessage(c.sets[i].message)
		if err != nil {
			c.wrong = fmt.Errorf("message signature %d: %w", i+1, err)
			return nil
		}
		c.seals, c.signed = append(c.seals, seal), append(c.signed, m)
		forms = append(forms, m.body)
	}
	return forms
}

// checkCV judges cv= of a seal (RFC 8617 section 5.2, steps 2 and 3).
func checkCV(i, last int, cv string) error {
	switch {
	case i == last && cv == "fail":
		return errors.New("it says that the chain had failed already")
	case i == 1 && cv != "none":
		return errors.New("the first one does not have cv=none")
	case i > 1 && cv != "pass":
		return errors.New("it does not have cv=pass")
	}
	return nil
}

// lookupsMax is how many keys are looked up at once.
const lookupsMax = 8

// Verify judges the chain (RFC 8617 section 5.2). m is the message whose header Bodies got. now is
// the time for expirations.
func (c *Chain) Verify(ctx context.Context, m Message, lookup dkim.LookupTXT, now time.Time) Result {
	h, odd := m.Header()
	r := Result{Instance: c.highest}
	last := len(c.sets) - 1
	switch {
	case len(c.sets) == 0 && c.wrong == nil && (odd == nil || h != nil):
		r.Verdict = dkim.None
		return r
	case c.wrong != nil:
		return r.failed(c.wrong)
	case odd != nil:
		return r.failed(odd)
	}
	keys := c.keys(ctx, lookup)
	if err := c.message(last, h, m, keys, now); err != nil {
		return r.failed(fmt.Errorf("message signature %d: %w", last+1, err))
	}
	for i := last - 1; i >= 0; i-- {
		if c.message(i, h, m, keys, now) != nil {
			r.OldestPass = i + 2
			break
		}
	}
	sums := c.sealSums()
	for i := last; i >= 0; i-- {
		if err := keys.verify(&c.seals[i].signer, sums[i]); err != nil {
			return r.failed(fmt.Errorf("seal %d: %w", i+1, err))
		}
	}
	for i := range c.seals {
		r.Sealers = append(r.Sealers, c.seals[i].domain)
		_, results, _ := strings.Cut(c.sets[i].results.Value(), ";")
		r.Authenticated = append(r.Authenticated, results)
	}
	r.Verdict = dkim.Pass
	return r
}

// failed is a result that is none of a valid chain.
func (r Result) failed(err error) Result {
	r.Verdict, r.Reason, r.OldestPass, r.Sealers = dkim.Fail, err.Error(), 0, nil
	if errors.Is(err, errNoAnswer) {
		r.Verdict = dkim.TempError
	}
	return r
}

// message judges the message signature of a set.
func (c *Chain) message(i int, h dkim.Header, m Message, keys *keyring, now time.Time) error {
	s := &c.signed[i]
	if expires, _ := (dkim.Tags{"x": s.expires}).Time("x"); s.expires != "" && now.After(expires) {
		return errors.New("it has expired")
	}
	if subtle.ConstantTimeCompare(m.Sum(s.body), s.bodyHash) != 1 {
		return errors.New("the body was changed")
	}
	sum := sha256.New()
	sum.Write(dkim.CanonicalFields(s.header, h, s.names))
	sum.Write(unsigned(s.header, c.sets[i].message))
	return keys.verify(&s.signer, sum.Sum(nil))
}

// unsigned is a field as its own signature has it: without the value of b= and the line end.
func unsigned(form dkim.Canon, f dkim.Field) []byte {
	return bytes.TrimSuffix(dkim.AppendCanonical(nil, form, dkim.WithoutValue(f.Raw)), []byte("\r\n"))
}

// sealSums are the hashes that the seals sign (RFC 8617 section 5.1.1): of all sets up to theirs.
func (c *Chain) sealSums() [][]byte {
	sums := make([][]byte, len(c.sets))
	var text []byte
	for i := range c.sets {
		s := &c.sets[i]
		text = dkim.AppendCanonical(text, dkim.Relaxed, s.results.Raw)
		text = dkim.AppendCanonical(text, dkim.Relaxed, s.message.Raw)
		sum := sha256.New()
		sum.Write(text)
		sum.Write(unsigned(dkim.Relaxed, s.seal))
		sums[i] = sum.Sum(nil)
		text = dkim.AppendCanonical(text, dkim.Relaxed, s.seal.Raw)
	}
	return sums
}

// errNoAnswer: a key is not known for now.
var errNoAnswer = errors.New("DNS does not answer")

// keyring are the keys of a chain by the names of their records.
type keyring struct{ keys map[string]keyOf }

type keyOf struct {
	key *dkim.PublicKey
	err error
}

// keys looks all keys of a chain up, each once.
func (c *Chain) keys(ctx context.Context, lookup dkim.LookupTXT) *keyring {
	r := &keyring{keys: map[string]keyOf{}}
	for i := range c.sets {
		r.keys[c.seals[i].record()], r.keys[c.signed[i].record()] = keyOf{}, keyOf{}
	}
	names := make([]string, 0, len(r.keys))
	for name := range r.keys {
		names = append(names, name)
	}
	found := make([]keyOf, len(names))
	slots := make(chan struct{}, lookupsMax)
	var all sync.WaitGroup
	for i, name := range names {
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			records, err := lookup(ctx, name)
			if err != nil {
				found[i].err = errNoAnswer
				return
			}
			found[i].key, found[i].err = dkim.ChooseRecord(records)
		})
	}
	all.Wait()
	for i, name := range names {
		r.keys[name] = found[i]
	}
	return r
}

// record is the name under which DNS has the key.
func (s *signer) record() string { return dkim.RecordName(s.selector, s.domain) }

// verify judges a signature of a hash.
func (r *keyring) verify(s *signer, sum []byte) error {
	k := r.keys[s.record()]
	kind, _, _ := strings.Cut(s.algorithm, "-")
	switch {
	case k.err != nil:
		return k.err
	case k.key.Kind != kind:
		return errors.New("the key is of another kind")
	case !k.key.Serves():
		return errors.New("the key is not for this use")
	case !k.key.Verifies(sum, s.value):
		return errors.New("the signature does not fit the header")
	}
	return nil
}
