package trial

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"
)

// stages are the places of the dialogue that rules name.
var stages = [...]string{"connect", "ehlo", "starttls", "mail", "rcpt", "data", "dot", "rset", "quit"}

// What a rule does.
const (
	actReply  = "reply"  // answer this instead
	actDelay  = "delay"  // wait first
	actCut    = "cut"    // close the connection without an answer
	actHang   = "hang"   // never answer
	actGarble = "garble" // answer something that is no reply
)

// Rule says what a sink does at a stage, always or with a probability.
type Rule struct {
	stage, action string
	percent       float64
	reply         string // of actReply, with CR LF
	delay         time.Duration
}

// RuleUsage says how ParseRule wants a rule, for messages and manuals.
const RuleUsage = `STAGE [PERCENT%] ACTION, where STAGE is connect, ehlo, starttls, mail, rcpt, data, dot, rset or
quit, and ACTION is one of "reply CODE TEXT", "delay DURATION", "cut", "hang" and "garble"`

// ParseRule reads a rule, such as "rcpt 10% reply 450 4.2.1 try later" or "dot delay 2s".
func ParseRule(text string) (Rule, error) {
	fail := func(why string) (Rule, error) {
		return Rule{}, fmt.Errorf("rule %q: %s; a rule is %s", text, why, RuleUsage)
	}
	words := strings.Fields(text)
	if len(words) < 2 {
		return fail("too short")
	}
	r := Rule{stage: strings.ToLower(words[0]), percent: 100}
	if !slices.Contains(stages[:], r.stage) {
		return fail("unknown stage " + strconv.Quote(words[0]))
	}
	words = words[1:]
	if p, ok := strings.CutSuffix(words[0], "%"); ok {
		var err error
		if r.percent, err = strconv.ParseFloat(p, 64); err != nil || !(r.percent >= 0 && r.percent <= 100) {
			return fail("no percentage: " + strconv.Quote(words[0]))
		}
		words = words[1:]
	}
	if len(words) == 0 {
		return fail("no action")
	}
	r.action = words[0]
	switch args := words[1:]; r.action {
	case actReply:
		code, err := strconv.Atoi(strings.Join(args[:min(len(args), 1)], ""))
		if err != nil || code < 200 || code > 599 {
			return fail("a reply begins with a code of three digits")
		}
		r.reply = strings.Join(args, " ") + "\r\n"
	case actDelay:
		var err error
		if r.delay, err = time.ParseDuration(strings.Join(args, "")); err != nil || r.delay < 0 {
			return fail("no duration")
		}
	case actCut, actHang, actGarble:
		if len(args) > 0 {
			return fail("too many words")
		}
	default:
		return fail("unknown action " + strconv.Quote(r.action))
	}
	return r, nil
}

// hits reports whether the rule is for a stage and for this time.
func (r *Rule) hits(stage string, rnd *rand.Rand) bool {
	return r.stage == stage && (r.percent >= 100 || rnd.Float64()*100 < r.percent)
}
