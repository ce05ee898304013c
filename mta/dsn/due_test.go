package dsn

import (
	"slices"
	"strings"
	"testing"
)

func TestDue(t *testing.T) {
	tests := []struct {
		notify string
		want   string // the kinds that are due
	}{
		{"", "failed delayed"},
		{"NEVER", ""},
		{"FAILURE", "failed"},
		{"DELAY", "delayed"},
		{"SUCCESS", "delivered relayed expanded"},
		{"SUCCESS,FAILURE,DELAY", "failed delayed delivered relayed expanded"},
		{"delay,Failure", "failed delayed"},
		{"SUCCESS,NEVER", "delivered relayed expanded"},
		{"WHATEVER", "failed delayed"},
		{"WHATEVER,SUCCESS", "delivered relayed expanded"},
	}
	for _, tt := range tests {
		t.Run(tt.notify, func(t *testing.T) {
			var got []string
			for k := Failed; k <= Expanded; k++ {
				if Due(tt.notify, k) {
					got = append(got, k.String())
				}
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestSuccess(t *testing.T) {
	tests := []struct {
		final, peerDSN bool
		kind           Kind
		ok             bool
	}{
		{false, false, Relayed, true},
		{true, false, Delivered, true},
		{false, true, 0, false},
		{true, true, 0, false},
	}
	for _, tt := range tests {
		if k, ok := Success(tt.final, tt.peerDSN); k != tt.kind || ok != tt.ok {
			t.Errorf("Success(%v, %v) = %v, %v", tt.final, tt.peerDSN, k, ok)
		}
	}
}

func TestExpand(t *testing.T) {
	tests := []struct {
		notify string
		to     int
		list   bool
		kind   Kind
		due    bool
		next   string
	}{
		{"", 2, false, Expanded, false, ""},
		{"", 2, true, Delivered, false, ""},
		{"NEVER", 2, false, Expanded, false, "NEVER"},
		{"NEVER", 2, true, Delivered, false, ""},
		{"SUCCESS", 2, false, Expanded, true, "NEVER"},
		{"SUCCESS,DELAY", 2, false, Expanded, true, "DELAY"},
		{"SUCCESS,FAILURE,DELAY", 2, false, Expanded, true, "FAILURE,DELAY"},
		{"FAILURE,DELAY", 2, false, Expanded, false, "FAILURE,DELAY"},
		{"SUCCESS,FAILURE", 2, true, Delivered, true, ""},
		{"", 1, false, Expanded, false, ""},
		{"SUCCESS,FAILURE", 1, false, Expanded, false, "SUCCESS,FAILURE"},
		{"NEVER", 1, false, Expanded, false, "NEVER"},
		{"SUCCESS", 1, true, Delivered, true, ""},
	}
	for _, tt := range tests {
		if k, due, next := Expand(tt.notify, tt.to, tt.list); k != tt.kind || due != tt.due || next != tt.next {
			t.Errorf("Expand(%q, %d, %v) = %v, %v, %q", tt.notify, tt.to, tt.list, k, due, next)
		}
	}
}

func TestMerge(t *testing.T) {
	kinds := map[byte]Kind{'f': Failed, 'd': Delayed, 's': Delivered, 'r': Relayed, 'x': Expanded}
	tests := []struct {
		list  string // a letter and a number for each recipient
		limit int
		want  string // the DSNs
	}{
		{"", 2, ""},
		{"f1", 2, "f1"},
		{"f1 f2 f3 f4 f5", 2, "f1 f2|f3 f4|f5"},
		{"f1 f2", 2, "f1 f2"},
		{"d1 s2 f3 r4 f5 x6 d7", 10, "f3 f5|d1 d7|s2 r4 x6"},
		{"s1 r2 x3", 2, "s1 r2|x3"},
		{"f1 f2", 0, "f1|f2"},
		{"f1 f2", -5, "f1|f2"},
	}
	for _, tt := range tests {
		t.Run(tt.list, func(t *testing.T) {
			list := strings.Fields(tt.list)
			before := slices.Clone(list)
			var got []string
			for _, group := range Merge(list, func(s string) Kind { return kinds[s[0]] }, tt.limit) {
				got = append(got, strings.Join(group, " "))
			}
			if g := strings.Join(got, "|"); g != tt.want || !slices.Equal(list, before) {
				t.Errorf("got %q, want %q", g, tt.want)
			}
		})
	}
}
