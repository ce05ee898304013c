package control_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"

	"meta1/mta/access"
	"meta1/mta/control"
)

var update = flag.Bool("update", false, "rewrite docs/openapi.json")

// TestOpenAPI: the document is that of the table which serves, and has the structure of OpenAPI 3.1.
func TestOpenAPI(t *testing.T) {
	now, err := control.Description()
	if err != nil {
		t.Fatal(err)
	}
	const file = "../../docs/openapi.json"
	if *update {
		if err := os.WriteFile(file, now, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	before, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(before, now) {
		t.Errorf("%s is not what the table of operations gives: go test ./mta/control -run TestOpenAPI -update (%v)", file, err)
	}
	if err := structure(now); err != nil {
		t.Error(err)
	}
	// The checker must notice what is wrong.
	for from, to := range map[string]string{
		`"openapi": "3.1.0"`:           `"openapi": "2.0"`,
		`"operationId": "stop"`:        `"operationId": "reload"`,
		`schemas/control.Status"`:      `schemas/control.Nothing"`,
		`"in": "path"`:                 `"in": "query"`,
		`"description": "The answer."`: `"text": "The answer."`,
		`"type": "integer"`:            `"type": "number of things"`,
	} {
		bad := strings.Replace(string(now), from, to, 1)
		if bad == string(now) {
			t.Errorf("%s is not in the document", from)
		} else if structure([]byte(bad)) == nil {
			t.Errorf("%s in place of %s is not noticed", to, from)
		}
	}
}

var inBraces = regexp.MustCompile(`\{([^}]+)\}`)

// structure checks what OpenAPI 3.1 demands of what we use of it.
func structure(text []byte) error {
	var doc struct {
		OpenAPI    string
		Info       struct{ Title, Version string }
		Paths      map[string]map[string]map[string]any
		Components struct{ Schemas map[string]any }
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return err
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1.") || doc.Info.Title == "" || doc.Info.Version == "" || len(doc.Paths) < 10 {
		return fmt.Errorf("version, info or paths: %s %+v", doc.OpenAPI, doc.Info)
	}
	var all any
	_ = json.Unmarshal(text, &all)
	if err := walk(all, doc.Components.Schemas); err != nil {
		return err
	}
	seen := map[string]bool{}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			at := method + " " + path
			id, _ := op["operationId"].(string)
			if !strings.HasPrefix(path, "/") || id == "" || seen[id] || op["summary"] == "" {
				return fmt.Errorf("%s: path, operationId %q or summary", at, id)
			}
			seen[id] = true
			params := map[string]bool{}
			list, _ := op["parameters"].([]any)
			for _, p := range list {
				p := p.(map[string]any)
				if p["schema"] == nil || p["in"] == "path" != (p["required"] == true) {
					return fmt.Errorf("%s: parameter %v", at, p)
				}
				params[fmt.Sprint(p["in"], p["name"])] = true
			}
			for _, name := range inBraces.FindAllStringSubmatch(path, -1) {
				if !params["path"+name[1]] {
					return fmt.Errorf("%s: no parameter %s", at, name[1])
				}
			}
			responses, _ := op["responses"].(map[string]any)
			if responses["200"] == nil || responses["default"] == nil {
				return fmt.Errorf("%s: responses %v", at, responses)
			}
			for status, r := range responses {
				if d, _ := r.(map[string]any)["description"].(string); d == "" {
					return fmt.Errorf("%s: response %s has no description", at, status)
				}
			}
		}
	}
	return nil
}

// walk checks references and types.
func walk(v any, schemas map[string]any) error {
	switch v := v.(type) {
	case map[string]any:
		if ref, ok := v["$ref"].(string); ok && schemas[strings.TrimPrefix(ref, "#/components/schemas/")] == nil {
			return fmt.Errorf("%s is not there", ref)
		}
		if t, ok := v["type"].(string); ok && !strings.Contains(" object array string integer number boolean null http mutualTLS ", " "+t+" ") {
			return fmt.Errorf("type %s", t)
		}
		for _, w := range v {
			if err := walk(w, schemas); err != nil {
				return err
			}
		}
	case []any:
		for _, w := range v {
			if err := walk(w, schemas); err != nil {
				return err
			}
		}
	}
	return nil
}

// TestLevels: who may read gets every operation that the document says may be read, and none that
// changes; a refused one gets nothing.
func TestLevels(t *testing.T) {
	text, err := control.Description()
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths map[string]map[string]struct {
			Level string `json:"x-level"`
		}
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	level, n := access.Read, 0
	who := func(*http.Request) access.Who {
		if level == access.None {
			return access.Who{Refused: "no", Status: http.StatusUnauthorized}
		}
		return access.Who{Level: level}
	}
	b := &backend{n: 3}
	h := control.Handler(b, who, nil)
	ask := func(method, path, kind string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(strings.ToUpper(method), strings.ReplaceAll(path, "{id}", "x"), strings.NewReader("{}"))
		r.Header.Set("Content-Type", kind)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			n++
			level = access.Read
			if w := ask(method, path, "application/json"); (w.Code == http.StatusForbidden) != (op.Level == "change") {
				t.Errorf("%s %s of level %s: %d for a reader", method, path, op.Level, w.Code)
			}
			level = access.None
			if w := ask(method, path, "application/json"); w.Code != http.StatusUnauthorized || w.Header().Get("WWW-Authenticate") == "" {
				t.Errorf("%s %s: %d for a stranger", method, path, w.Code)
			}
			level = access.Change
			w := ask(method, path, "text/plain")
			if method == "post" && w.Code != http.StatusUnsupportedMediaType {
				t.Errorf("%s %s: %d for text/plain", method, path, w.Code)
			}
			for name := range w.Header() {
				if strings.HasPrefix(name, "Access-Control-") {
					t.Errorf("%s %s has %s", method, path, name)
				}
			}
		}
	}
	if n < 15 {
		t.Errorf("%d operations", n)
	}
	level = access.Change
	r := httptest.NewRequest(http.MethodPost, "/queue", strings.NewReader(`{"op":"hold","ss_ta":"`+strings.Repeat("x", 70<<10)+`"}`))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	if h.ServeHTTP(w, r); w.Code != http.StatusBadRequest {
		t.Errorf("a large body: %d", w.Code)
	}
	if w := ask("get", "/messages/none", ""); w.Code != http.StatusOK && w.Code != http.StatusNotFound {
		t.Errorf("%d", w.Code)
	}
}
