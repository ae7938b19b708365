// SPDX-License-Identifier: Apache-2.0

package reference

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	hex64  = strings.Repeat("0123456789abcdef", 4)
	hex128 = hex64 + hex64
)

func TestParse(t *testing.T) {
	d := Digest{text: "sha256:" + hex64}
	for _, tt := range []struct {
		in       string
		want     Ref
		str, fam string
	}{
		{"alpine", Ref{"docker.io", "library/alpine", "latest", Digest{}}, "docker.io/library/alpine:latest", "alpine:latest"},
		{"alpine:3.20", Ref{"docker.io", "library/alpine", "3.20", Digest{}}, "docker.io/library/alpine:3.20", "alpine:3.20"},
		{"u/app", Ref{"docker.io", "u/app", "latest", Digest{}}, "docker.io/u/app:latest", "u/app:latest"},
		{"docker.io/alpine", Ref{"docker.io", "library/alpine", "latest", Digest{}}, "docker.io/library/alpine:latest", "alpine:latest"},
		{"index.docker.io/u/app", Ref{"docker.io", "u/app", "latest", Digest{}}, "docker.io/u/app:latest", "u/app:latest"},
		{"library/a/b", Ref{"docker.io", "library/a/b", "latest", Digest{}}, "docker.io/library/a/b:latest", "library/a/b:latest"},
		{"localhost/app", Ref{"localhost", "app", "latest", Digest{}}, "localhost/app:latest", "localhost/app:latest"},
		{"localhost:5000/app:v1", Ref{"localhost:5000", "app", "v1", Digest{}}, "localhost:5000/app:v1", "localhost:5000/app:v1"},
		{"[::1]:5000/app", Ref{"[::1]:5000", "app", "latest", Digest{}}, "[::1]:5000/app:latest", "[::1]:5000/app:latest"},
		{"Host/app", Ref{"Host", "app", "latest", Digest{}}, "Host/app:latest", "Host/app:latest"},
		{"base.sbx/alpine:3", Ref{"base.sbx", "alpine", "3", Digest{}}, "base.sbx/alpine:3", "base.sbx/alpine:3"},
		{"a@sha256:" + hex64, Ref{"docker.io", "library/a", "", d}, "docker.io/library/a@sha256:" + hex64, "a@sha256:" + hex64},
		{"a:t@sha256:" + hex64, Ref{"docker.io", "library/a", "t", d}, "docker.io/library/a:t@sha256:" + hex64, "a:t@sha256:" + hex64},
	} {
		got, err := Parse(tt.in)
		if err != nil {
			t.Errorf("Parse(%q): %v", tt.in, err)
			continue
		}
		if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(Digest{})); diff != "" {
			t.Errorf("Parse(%q) (-want +got):\n%s", tt.in, diff)
		}
		if got.String() != tt.str || got.Familiar() != tt.fam {
			t.Errorf("Parse(%q): String %q, Familiar %q; want %q, %q", tt.in, got.String(), got.Familiar(), tt.str, tt.fam)
		}
		if got.Name() != tt.str[:len(got.Name())] || !strings.HasPrefix(tt.fam, got.FamiliarName()) {
			t.Errorf("Parse(%q): Name %q, FamiliarName %q", tt.in, got.Name(), got.FamiliarName())
		}
	}
}

func TestParseErrors(t *testing.T) {
	for _, tt := range []struct{ in, want, hint string }{
		{"", `parse reference "": empty`, ""},
		{hex64, `parse reference "` + hex64 + `": this is an image ID, not a name`, ""},
		{"Alpine", `parse reference "Alpine": the repository name must be lower case`, "try alpine"},
		{"Alpine:V1", `parse reference "Alpine:V1": the repository name must be lower case`, "try alpine:V1"},
		{"a_b.c/x", `parse reference "a_b.c/x": invalid registry name`, ""},
		{"a b", `parse reference "a b": invalid repository name`, ""},
		{"a:", `parse reference "a:": invalid tag`, ""},
		{"a@sha256:12", `parse reference "a@sha256:12": invalid digest`, "a digest is sha256: and 64 hexadecimal digits"},
		{"a\x1b[31m", `parse reference "a\x1b[31m": invalid repository name`, ""},
		{strings.Repeat("a/", 200) + "a", `parse reference "` + strings.Repeat("a/", 100) + `...": the repository name is longer than 255 characters`, ""},
	} {
		_, err := Parse(tt.in)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("Parse(%q): %v, want an *Error", tt.in, err)
			continue
		}
		if e.Error() != tt.want || e.Hint() != tt.hint {
			t.Errorf("Parse(%q):\n got %s (%s)\nwant %s (%s)", tt.in, e, e.Hint(), tt.want, tt.hint)
		}
	}
}

func TestParseDigest(t *testing.T) {
	for _, good := range []string{"sha256:" + hex64, "sha512:" + hex128} {
		d, err := ParseDigest(good)
		if err != nil {
			t.Fatal(err)
		}
		if d.String() != good || d.Algorithm()+":"+d.Hex() != good || d.IsZero() {
			t.Errorf("ParseDigest(%q) = %q, %q, %q", good, d, d.Algorithm(), d.Hex())
		}
		text, _ := d.MarshalText()
		var back Digest
		if err := back.UnmarshalText(text); err != nil || back != d {
			t.Errorf("UnmarshalText(%q) = %q, %v", text, back, err)
		}
	}
	for _, bad := range []string{
		"", ":", "sha256", "sha256:", hex64, "sha256:" + hex64[1:], "sha256:" + hex64 + "0", "sha256:" + hex128, "sha512:" + hex64,
		"SHA256:" + hex64, "sha256:" + strings.ToUpper(hex64), "sha384:" + hex64 + hex64[:32], "md5:" + hex64[:32],
		"sha256:../../../../../../../../../../../../../../../../../../../../../e", "sha256:" + hex64[:63] + "/", "sha256:" + hex64[:63] + "\x00",
		" sha256:" + hex64, "sha256:" + hex64 + "\n", "sha256+b64:" + hex64, "sha256:sha256:" + hex64[7:],
	} {
		if d, err := ParseDigest(bad); err == nil || !d.IsZero() {
			t.Errorf("ParseDigest(%q) = %q, %v", bad, d, err)
		}
		var d Digest
		if err := d.UnmarshalText([]byte(bad)); (err == nil) != (bad == "") {
			t.Errorf("UnmarshalText(%q): %v", bad, err)
		}
	}
	var sum [32]byte
	sum[0], sum[31] = 0xab, 1
	if got, want := SHA256(sum).String(), "sha256:ab"+strings.Repeat("0", 60)+"01"; got != want {
		t.Errorf("SHA256 = %q, want %q", got, want)
	}
	if z := (Digest{}); z.Algorithm() != "" || z.Hex() != "" || z.String() != "" || !z.IsZero() {
		t.Error("the zero digest is not empty")
	}
}
