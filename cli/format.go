// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"text/tabwriter"
	"text/template"
	"unicode"
)

const formatUsage = `Format output using a custom template: 'table' (the default), 'table TEMPLATE', 'json', or a Go template`

const inspectFormatUsage = `Format output using a custom template: 'json', or a Go template`

// parseTemplate reads a template with Docker's functions in it.
func parseTemplate(text string) (*template.Template, error) {
	t, err := template.New("").Funcs(template.FuncMap{
		"json":     formatJSON,
		"split":    strings.Split,
		"join":     joinElements,
		"title":    title,
		"lower":    strings.ToLower,
		"upper":    strings.ToUpper,
		"pad":      pad,
		"truncate": truncate,
	}).Parse(text)
	if err != nil {
		return nil, templateError(err)
	}
	return t, nil
}

// templateError strips an error of the name that a template needs and does not have.
func templateError(err error) error {
	return &usageError{text: "parse --format: " + strings.Replace(strings.TrimPrefix(err.Error(), "template: "), ": <", ": at <", 1)}
}

func formatJSON(v any) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return "", err
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

// title writes the first letter of each word large.
func title(s string) string {
	before := ' '
	return strings.Map(func(r rune) rune {
		first := unicode.IsSpace(before)
		before = r
		if first {
			return unicode.ToTitle(r)
		}
		return r
	}, s)
}

// pad puts spaces around a text, unless that is empty.
func pad(s string, before, after int) string {
	if s == "" {
		return s
	}
	return strings.Repeat(" ", max(before, 0)) + s + strings.Repeat(" ", max(after, 0))
}

func truncate(s string, most int) string {
	if most < 0 || len(s) < most {
		return s
	}
	return s[:most]
}

// joinElements joins what any list or map holds.
func joinElements(list any, between string) (string, error) {
	v := reflect.ValueOf(list)
	var parts []string
	switch v.Kind() {
	case reflect.Invalid:
		return "", nil
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			parts = append(parts, fmt.Sprint(v.Index(i).Interface()))
		}
	case reflect.Map:
		for _, k := range v.MapKeys() {
			parts = append(parts, fmt.Sprint(v.MapIndex(k).Interface()))
		}
		slices.Sort(parts)
	default:
		return "", fmt.Errorf("join: a list is wanted, this is a %T", list)
	}
	return strings.Join(parts, between), nil
}

// headings replace the functions that would spoil the headings of a table.
func headings() template.FuncMap {
	same := func(s string) string { return s }
	return template.FuncMap{
		"json": same, "title": same, "lower": same, "upper": same,
		"split":    func(s, _ string) string { return s },
		"join":     func(s, _ string) string { return s },
		"truncate": func(s string, _ int) string { return s },
	}
}

// formatRows renders a list by what --format says: a table, JSON, or a line for
// each row. header is a row of the columns' headings.
func formatRows[R any](format, table string, header R, rows []R) (string, error) {
	switch format {
	case "", "table":
		format = "table " + table
	case "json":
		format = "{{json .}}"
	}
	body, isTable := strings.CutPrefix(format, "table")
	body = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(strings.Trim(body, " "))
	t, err := parseTemplate(body)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, r := range rows {
		if err := t.Execute(&b, r); err != nil {
			return "", templateError(err)
		}
		b.WriteByte('\n')
	}
	if !isTable {
		return b.String(), nil
	}
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 10, 1, 3, ' ', 0)
	if err := t.Funcs(headings()).Execute(w, header); err != nil {
		return "", templateError(err)
	}
	fmt.Fprintf(w, "\n%s", b.String())
	err = w.Flush()
	return out.String(), err
}

// formatOne renders one value by a template, or as JSON.
func formatOne(format string, v any) (string, error) {
	if format == "json" {
		format = "{{json .}}"
	}
	t, err := parseTemplate(format)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	if err := t.Execute(&b, v); err != nil {
		return "", templateError(err)
	}
	return b.String() + "\n", nil
}
