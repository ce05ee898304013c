package dryrun

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"meta1/confparse"
	"meta1/maps"
	"meta1/mta/exit"
	"meta1/mta/explain"
	"meta1/mta/settings"
	"meta1/resolver"
	"meta1/resolver/access"
)

// repliesMax bounds the entries that are told to make a reply.
const repliesMax = 100

// ReplyReport says what may be behind a reply.
type ReplyReport struct {
	Config  string       `json:"config"`
	Entries []ReplyEntry `json:"entries"` // of maps, that make it
	Replies []ReplyCause `json:"replies"` // of the program
	More    bool         `json:"more,omitempty"`
}

// ReplyEntry is an entry of a map that makes a reply.
type ReplyEntry struct {
	Map   string `json:"map"`
	Where string `json:"where,omitempty"` // file:line of a text
	Key   string `json:"key"`
	Value string `json:"value"`
	Reply string `json:"reply"`
}

// ReplyCause is a reply of the program, and the options that it depends on.
type ReplyCause struct {
	Reply   string           `json:"reply"`
	Stage   string           `json:"stage"`
	Why     string           `json:"why,omitempty"`
	Options []explain.Option `json:"options,omitempty"` // for each section smtps
}

// ExplainReply finds out what in a configuration makes a reply: entries of the access map with
// that text, and replies of the program itself with the options behind them. reply may be a part
// of one.
func ExplainReply(file, reply string) (*ReplyReport, error) {
	c, result, err := settings.Load(file, confparse.LoadOptions{})
	if err != nil {
		return nil, err
	}
	r := &ReplyReport{Config: result.File, Entries: []ReplyEntry{}, Replies: []ReplyCause{}}
	for _, m := range c.MapFiles(c.Resolver.Access) {
		if err := r.search(m, reply); err != nil {
			return nil, err
		}
	}
	e := &explainer{conf: c, result: result}
	for _, known := range explain.FindReplies(reply) {
		cause := ReplyCause{Reply: known.String(), Stage: known.Stage, Why: known.Why}
		seen := map[string]bool{}
		for _, s := range c.Servers {
			for _, o := range e.optionsOf(known.Options, s.Of.Section) {
				if !seen[o.Option] {
					seen[o.Option] = true
					cause.Options = append(cause.Options, o)
				}
			}
		}
		r.Replies = append(r.Replies, cause)
	}
	return r, nil
}

// search looks for entries of a map that make the reply.
func (r *ReplyReport) search(m resolver.MapConfig, reply string) error {
	err := maps.EachEntry(m.File, m.Type, func(e maps.Entry) error {
		rhs, err := access.Parse(e.Value)
		if err != nil || rhs.Word != access.Error {
			return nil // config check tells of entries that cannot be read
		}
		made := explain.Reply{Code: rhs.Reply.Code, Text: strings.TrimPrefix(rhs.Reply.String(), fmt.Sprint(rhs.Reply.Code))}
		if !made.Matches(reply) {
			return nil
		}
		if len(r.Entries) == repliesMax {
			r.More = true
			return errEnough
		}
		entry := ReplyEntry{Map: m.File, Key: e.Key, Value: e.Value, Reply: rhs.Reply.String()}
		if e.Line > 0 && m.Type == "text" {
			entry.Where = fmt.Sprintf("%s:%d", m.File, e.Line)
		}
		r.Entries = append(r.Entries, entry)
		return nil
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return exit.With(exit.IOErr, err)
	}
	return nil
}
