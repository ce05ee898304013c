package syntax

import "testing"

// TestPart: a part of the text of an expression is found in the file, behind comments too.
func TestPart(t *testing.T) {
	const file = "a {\n  x == /* one\n two */ b \"c;#\" # three\n    && dd == 5 ;\n}\n"
	in := &Input{Nodes: MaxNodes}
	body, _ := Parse(&Source{Name: "f", Text: file}, in)
	if len(in.Errs) > 0 {
		t.Fatal(in.Errs)
	}
	v := body[0].Body[0].Values[0]
	if v.Text != `b "c;#"  && dd == 5` {
		t.Fatalf("text %q", v.Text)
	}
	for part, want := range map[[2]int]string{
		{0, 1}: "f:3:9 b", {2, 7}: `f:3:11 "c;#"`, {4, 6}: "f:3:13 ;#", {9, 11}: "f:4:5 &&", {12, 14}: "f:4:8 dd", {18, 19}: "f:4:14 5", {19, 19}: "f:4:15 ",
	} {
		s := v.At.Part(part[0], part[1])
		if got := s.Pos().String() + " " + file[s.off:s.end]; got != want {
			t.Errorf("%v is at %q, want %q", part, got, want)
		}
	}
	if s := (Span{}).Part(1, 2); s.Pos().IsSet() {
		t.Errorf("no place has the part %v", s.Pos())
	}
}

func TestReadString(t *testing.T) {
	for text, want := range map[string]struct {
		value string
		n     int
		fails bool
	}{
		`"a\x41\n" "b"`: {"aA\n", 9, false},
		`""x`:           {"", 2, false},
		`x`:             {"", 0, true},
		``:              {"", 0, true},
		`"open`:         {"", 5, true},
		`"\q"`:          {"", 4, true},
		"\"a\nb\"":      {"", 2, true},
	} {
		value, n, err := ReadString(text)
		if value != want.value || n != want.n || (err != nil) != want.fails {
			t.Errorf("%q: %q, %d, %v", text, value, n, err)
		}
	}
}
