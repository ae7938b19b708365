// SPDX-License-Identifier: Apache-2.0

package reference

import (
	_ "crypto/sha512" // so that the other side accepts sha512, too
	"fmt"
	"strings"
	"testing"

	docker "github.com/distribution/reference"
)

// theirs is what Docker makes of s, in our words. Two things differ on purpose: sha384,
// which nothing on disk uses, and names such as "a_b.c/x" that come out of Docker's
// parser without a domain and that no registry can serve.
func theirs(s string) (Ref, string, error) {
	named, err := docker.ParseNormalizedNamed(s)
	if err != nil {
		return Ref{}, "", err
	}
	named = docker.TagNameOnly(named)
	r := Ref{Domain: docker.Domain(named), Path: docker.Path(named)}
	if r.Domain == "" {
		return Ref{}, "", fmt.Errorf("no domain")
	}
	if tagged, ok := named.(docker.Tagged); ok {
		r.Tag = tagged.Tag()
	}
	if digested, ok := named.(docker.Digested); ok {
		d := digested.Digest()
		if d.Algorithm() == "sha384" {
			return Ref{}, "", fmt.Errorf("sha384")
		}
		r.Digest = Digest{text: d.String()}
	}
	return r, docker.FamiliarString(named), nil
}

// compare holds Parse against Docker's parser on s and checks the round trips.
func compare(t *testing.T, s string) {
	t.Helper()
	want, familiar, wantErr := theirs(s)
	got, err := Parse(s)
	if (err == nil) != (wantErr == nil) {
		t.Fatalf("Parse(%q) = %+v, %v; Docker: %+v, %v", s, got, err, want, wantErr)
	}
	if err != nil {
		return
	}
	if got != want {
		t.Fatalf("Parse(%q) = %+v; Docker: %+v", s, got, want)
	}
	if got.Familiar() != familiar {
		t.Fatalf("Parse(%q).Familiar() = %q; Docker: %q", s, got.Familiar(), familiar)
	}
	for _, again := range []string{got.String(), got.Familiar()} {
		if back, err := Parse(again); err != nil || back != got {
			t.Fatalf("Parse(%q) = %+v, %v; want %+v as %q gave", again, back, err, got, s)
		}
	}
}

// inputs are names, domains, tags and digests that are right, wrong or borderline:
// every name with every domain, and every name with every tag and digest.
func inputs() []string {
	names := []string{
		"", "a", "alpine", "library/alpine", "u/app", "a/b/c/d", "A", "a/B", "a//b", "/a", "a/", "a.b", "a..b", "a_b", "a__b", "a___b", "a-b", "a---b",
		"a.-b", "-a", "a-", ".a", "a.", "_a", "a_", "é", "a b", "a\n", "a\x00", hex64, strings.Repeat("a", 255), strings.Repeat("a", 256), strings.Repeat("a", 247), strings.Repeat("a", 248), "localhost", "host", ".", "..", "./a", "../a", "a/../b",
	}
	domains := []string{
		"", "docker.io/", "index.docker.io/", "Docker.io/", "registry-1.docker.io/", "localhost/", "localhost:5000/", "LOCALHOST/", "example.com/", "example.com:443/", "example.com:/", "example.com:x/", "127.0.0.1/", "127.0.0.1:5000/",
		"[::1]/", "[::1]:5000/", "[::1/", "::1]/", "[]/", "[::1%lo]/", "[::ffff:1.2.3.4]/", "[::1]x/", "[::1]:/", "[::1]:5000]/", "a_b.c/", "-a.b/", "a-.b/", "a..b/", ".a/", "a./", "a:1:2/", "https://", "https://a/", "user@host.com/", "user:pw@host.com/", "x.é/", "Ab/", "A-b/", "A_b/", "base.sbx/",
	}
	tags := []string{"", ":", ":latest", ":V1.0_x-", ":.a", ":-a", ":_a", ":é", ":a b", ":a/b", ":5000", ":" + strings.Repeat("a", 128), ":" + strings.Repeat("a", 129), ":a:b", ":a\n"}
	digests := []string{
		"", "@", "@sha256:" + hex64, "@sha256:" + strings.ToUpper(hex64), "@sha256:" + hex64[1:], "@sha512:" + hex128, "@sha384:" + hex64 + hex64[:32], "@md5:" + hex64[:32], "@sha256:" + hex64 + "@sha256:" + hex64, "@" + hex64, "@sha256:" + hex64 + "\n",
	}
	all := []string{"sha256:" + hex64, hex64 + "0", hex64[:63], strings.ToUpper(hex64), "index.docker.io:80/a", "docker.io:80/a", "docker.io", "docker.io/", "localhost:5000", "a@b", "@", ":", "/", "//"}
	for _, n := range names {
		for _, d := range domains {
			all = append(all, d+n, d+n+":t", d+n+"@sha256:"+hex64)
		}
		for _, tag := range tags {
			for _, digest := range digests {
				all = append(all, n+tag+digest, "localhost:5000/"+n+tag+digest)
			}
		}
	}
	return all
}

func TestParseAsDocker(t *testing.T) {
	for _, s := range inputs() {
		compare(t, s)
	}
}

func FuzzParse(f *testing.F) {
	for i, s := range inputs() {
		if i%97 == 0 || i < 20 {
			f.Add(s)
		}
	}
	f.Fuzz(compare)
}

func FuzzParseDigest(f *testing.F) {
	f.Add("sha256:" + hex64)
	f.Add("sha512:" + hex128)
	f.Add("sha256:" + hex64[1:])
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDigest(s)
		if err != nil {
			if !d.IsZero() {
				t.Fatalf("ParseDigest(%q) = %q beside an error", s, d)
			}
			return
		}
		if d.String() != s || strings.ContainsAny(d.Hex()+d.Algorithm(), "/.\x00") {
			t.Fatalf("ParseDigest(%q) = %q", s, d)
		}
	})
}
