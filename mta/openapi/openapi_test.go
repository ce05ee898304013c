package openapi

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"
)

type inner struct {
	Kind string `json:"kind"`
}

type node struct {
	inner
	Name     string           `json:"name"`
	Children []node           `json:"children,omitempty"`
	When     time.Time        `json:"when,omitzero"`
	Counts   map[string]int   `json:"counts"`
	Any      any              `json:"any"`
	Next     *node            `json:"next"`
	Ages     [3]int           `json:"ages"`
	Left     string           `json:"-"`
	hidden   int              //nolint
	Took     time.Duration    `json:"took"`
	Sizes    map[string][]int `json:"sizes,omitempty"`
}

type failure struct {
	Error string `json:"error"`
}

// TestDocument: types are described as encoding/json writes them.
func TestDocument(t *testing.T) {
	_ = node{}.hidden
	out, err := Document(API{
		Title: "t", Version: "1", Error: reflect.TypeFor[failure](),
		Operations: []Operation{
			{Method: "GET", Path: "/n/{id}", ID: "n", Params: []Param{{"id", "string", "d"}, {"q", "integer", "d"}}, Answer: reflect.TypeFor[node](), Also: []int{503}},
			{Method: "POST", Path: "/n/{id}", ID: "m", Params: []Param{{"id", "string", "d"}}, Body: reflect.TypeFor[[]node]()},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths      map[string]map[string]map[string]any
		Components struct {
			Schemas map[string]struct {
				Properties map[string]any
				Required   []string
			}
		}
	}
	if err := json.Unmarshal(out, &doc); err != nil {
		t.Fatal(err)
	}
	n := doc.Components.Schemas["openapi.node"]
	want := map[string]any{
		"kind": object{"type": "string"}, "name": object{"type": "string"}, "when": object{"type": "string", "format": "date-time"},
		"children": object{"type": []any{"array", "null"}, "items": object{"$ref": "#/components/schemas/openapi.node"}},
		"counts":   object{"type": []any{"object", "null"}, "additionalProperties": object{"type": "integer", "format": "int64"}},
		"any":      object{}, "next": object{"anyOf": []any{object{"$ref": "#/components/schemas/openapi.node"}, object{"type": "null"}}},
		"ages": object{"type": "array", "items": object{"type": "integer", "format": "int64"}, "minItems": 3.0, "maxItems": 3.0},
		"took": object{"type": "integer", "format": "int64", "description": "nanoseconds"},
		"sizes": object{"type": []any{"object", "null"}, "additionalProperties": object{
			"type": []any{"array", "null"}, "items": object{"type": "integer", "format": "int64"},
		}},
	}
	if !reflect.DeepEqual(n.Properties, want) {
		t.Errorf("got  %v\nwant %v", n.Properties, want)
	}
	if want := []string{"kind", "name", "counts", "any", "next", "ages", "took"}; !reflect.DeepEqual(n.Required, want) {
		t.Errorf("required %v, want %v", n.Required, want)
	}
	get := doc.Paths["/n/{id}"]["get"]
	if params := get["parameters"].([]any); params[0].(object)["in"] != "path" || params[1].(object)["in"] != "query" {
		t.Errorf("parameters %v", params)
	}
	if responses := get["responses"].(object); responses["503"] == nil || responses["default"] == nil {
		t.Errorf("responses %v", responses)
	}
	if doc.Paths["/n/{id}"]["post"]["requestBody"] == nil {
		t.Error("no body")
	}
}
