// Package openapi describes an HTTP API in the words of OpenAPI 3.1, from the table of its
// operations and from the Go types of bodies and answers as encoding/json writes them. It is pure.
package openapi

import (
	"encoding"
	"encoding/json"
	"path"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// API is what is described.
type API struct {
	Title, Version, Description string
	Operations                  []Operation
	// Error is the type of the answer to a request that failed.
	Error reflect.Type
}

// Operation is one method of one path.
type Operation struct {
	Method  string // GET, POST
	Path    string // may have parameters, as /messages/{id}
	ID      string // one word, of its own
	Summary string // one sentence
	Level   string // what the asker must be allowed to do
	Params  []Param
	Body    reflect.Type // nil: none
	Answer  reflect.Type // nil: text or a page
	// Also are statuses besides 200 with which Answer comes.
	Also []int
}

// Param is one parameter, of the path if that has its name in braces, else of the query.
type Param struct {
	Name, Type, Doc string // Type is string, integer or boolean
}

type object = map[string]any

// Document is the description in JSON, indented. The same API gives the same bytes.
func Document(a API) ([]byte, error) {
	d := describer{schemas: object{}}
	paths := object{}
	failed := d.schema(a.Error)
	for i := range a.Operations {
		op := &a.Operations[i]
		methods, _ := paths[op.Path].(object)
		if methods == nil {
			methods = object{}
			paths[op.Path] = methods
		}
		methods[strings.ToLower(op.Method)] = d.operation(op, failed)
	}
	out, err := json.MarshalIndent(object{
		"openapi": "3.1.0",
		"info":    object{"title": a.Title, "version": a.Version, "description": a.Description},
		"paths":   paths,
		"components": object{
			"schemas": d.schemas,
			"securitySchemes": object{
				"token":       object{"type": "http", "scheme": "bearer", "description": "A token of the files token_file (change) or read_token_file (read)."},
				"certificate": object{"type": "mutualTLS", "description": "A certificate that change_certificates or read_certificates name."},
			},
		},
		"security": []any{object{"token": []any{}}, object{"certificate": []any{}}, object{}},
	}, "", "  ")
	return append(out, '\n'), err
}

// describer collects the schemas of named types.
type describer struct{ schemas object }

func (d *describer) operation(op *Operation, failed any) object {
	o := object{"operationId": op.ID, "summary": op.Summary, "x-level": op.Level}
	var params []any
	for _, p := range op.Params {
		in := "query"
		if strings.Contains(op.Path, "{"+p.Name+"}") {
			in = "path"
		}
		params = append(params, object{
			"name": p.Name, "in": in, "required": in == "path", "description": p.Doc, "schema": object{"type": p.Type},
		})
	}
	if params != nil {
		o["parameters"] = params
	}
	if op.Body != nil {
		o["requestBody"] = object{"required": true, "content": content(d.schema(op.Body))}
	}
	responses := object{"default": object{"description": "It failed, or was refused.", "content": content(failed)}}
	if op.Answer != nil {
		answer := object{"description": "The answer.", "content": content(d.schema(op.Answer))}
		responses["200"] = answer
		for _, status := range op.Also {
			responses[strconv.Itoa(status)] = answer
		}
	} else {
		responses["200"] = object{"description": "A JSON document."}
	}
	o["responses"] = responses
	return o
}

func content(schema any) object { return object{"application/json": object{"schema": schema}} }

// Describer is a type that encoding/json writes in a way of its own.
type Describer interface {
	// OpenAPI is its schema.
	OpenAPI() map[string]any
}

// schema is the schema of a type; that of a named struct is a reference.
func (d *describer) schema(t reflect.Type) any {
	switch {
	case t.Implements(reflect.TypeFor[Describer]()):
		return reflect.Zero(t).Interface().(Describer).OpenAPI()
	case t == reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case t == reflect.TypeFor[time.Duration]():
		return object{"type": "integer", "format": "int64", "description": "nanoseconds"}
	case t.Kind() != reflect.Pointer && t.Implements(reflect.TypeFor[json.Marshaler]()):
		return object{}
	case t.Kind() != reflect.Pointer && t.Implements(reflect.TypeFor[encoding.TextMarshaler]()):
		return object{"type": "string"}
	}
	switch t.Kind() {
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int, reflect.Int64, reflect.Uint64, reflect.Uint:
		return object{"type": "integer", "format": "int64"}
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Uint8, reflect.Uint16, reflect.Uint32:
		return object{"type": "integer", "format": "int32"}
	case reflect.Float32, reflect.Float64:
		return object{"type": "number"}
	case reflect.String:
		return object{"type": "string"}
	case reflect.Slice:
		return object{"type": []any{"array", "null"}, "items": d.schema(t.Elem())} // a nil slice is null
	case reflect.Array:
		return object{"type": "array", "items": d.schema(t.Elem()), "minItems": t.Len(), "maxItems": t.Len()}
	case reflect.Map:
		return object{"type": []any{"object", "null"}, "additionalProperties": d.schema(t.Elem())}
	case reflect.Pointer:
		return object{"anyOf": []any{d.schema(t.Elem()), object{"type": "null"}}}
	case reflect.Struct:
		return d.named(t)
	}
	return object{} // any
}

// named puts a struct among the schemas, and refers to it.
func (d *describer) named(t reflect.Type) any {
	if t.Name() == "" {
		return d.structure(t)
	}
	name := path.Base(t.PkgPath()) + "." + t.Name()
	if _, known := d.schemas[name]; !known {
		d.schemas[name] = object{} // it may hold itself
		d.schemas[name] = d.structure(t)
	}
	return object{"$ref": "#/components/schemas/" + name}
}

func (d *describer) structure(t reflect.Type) object {
	properties, required := object{}, []string{}
	for _, f := range reflect.VisibleFields(t) {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" || !f.IsExported() || name == "-" {
			continue
		}
		if name == "" {
			name = f.Name
		}
		properties[name] = d.schema(f.Type)
		if !strings.Contains(","+options+",", ",omitempty,") && !strings.Contains(","+options+",", ",omitzero,") {
			required = append(required, name)
		}
	}
	o := object{"type": "object", "properties": properties}
	if len(required) > 0 {
		o["required"] = required
	}
	return o
}
