// SPDX-License-Identifier: Apache-2.0

package bases

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sbx/tests/need"
	"sbx/tests/upstream"
)

func TestOpenSigned(t *testing.T) {
	own, other := upstream.NewSigner(1), upstream.NewSigner(2)
	keys, err := parseKeyring(append(append([]byte{}, other.Packet...), own.Packet...))
	if err != nil || len(keys) != 2 {
		t.Fatalf("%d keys, error %v", len(keys), err)
	}
	now := time.Unix(1000, 0)
	text := "Suite: x\n- a dash\nspaces  \n\nend\n"
	signed := own.ClearSigned(text, 0)
	got, err := keys.openSigned([]byte(signed), now)
	if want := "Suite: x\n- a dash\nspaces\n\nend\n"; err != nil || string(got) != want {
		t.Errorf("%q, error %v, want %q", got, err, want)
	}
	// A mail's line ends are no change.
	if _, err := keys.openSigned([]byte(strings.ReplaceAll(signed, "\n", "\r\n")), now); err != nil {
		t.Error(err)
	}
	var refused *signatureError
	for name, test := range map[string]struct {
		message string
		keys    keyring
		now     time.Time
	}{
		"another text":  {strings.Replace(signed, "Suite: x", "Suite: y", 1), keys, now},
		"an added line": {strings.Replace(signed, "end\n", "end\nmore\n", 1), keys, now},
		"unknown key":   {upstream.NewSigner(3).ClearSigned(text, 0), keys, now},
		"no keys":       {signed, nil, now},
		"expired":       {own.ClearSigned(text, 5), keys, now},
	} {
		if _, err := test.keys.openSigned([]byte(test.message), test.now); !errors.As(err, &refused) {
			t.Errorf("%s: error %v, want that there is no good signature", name, err)
		}
	}
	if _, err := keys.openSigned([]byte(own.ClearSigned(text, 1000)), now); err != nil {
		t.Errorf("before it expires: %v", err)
	}
	// What stands around the signed text is not a part of it.
	for name, message := range map[string]string{
		"a line before":      "Suite: evil\n" + signed,
		"not signed":         "Suite: x\n",
		"nothing":            "",
		"an unescaped dash":  strings.Replace(signed, "- - a dash", "-a dash", 1),
		"no signature":       signed[:strings.Index(signed, "-----BEGIN PGP SIGNATURE")],
		"damaged base64":     strings.Replace(signed, "-----END", "!\n-----END", 1),
		"signature cut off":  strings.Replace(signed, "-----END PGP SIGNATURE-----", "", 1),
		"signature, no data": "-----BEGIN PGP SIGNED MESSAGE-----\n\nx\n-----BEGIN PGP SIGNATURE-----\n\n\n-----END PGP SIGNATURE-----\n",
	} {
		if got, err := keys.openSigned([]byte(message), now); err == nil {
			t.Errorf("%s: opened as %q", name, got)
		}
	}
}

// The keys that are linked in are read, all that an archive can sign with today.
func TestDebianKeys(t *testing.T) {
	keys, err := parseKeyring(debianKeys)
	if err != nil {
		t.Fatal(err)
	}
	rsa, edwards := 0, 0
	for _, k := range keys {
		if k.rsa != nil {
			rsa++
		}
		if k.ed25519 != nil {
			edwards++
		}
	}
	if rsa < 8 || edwards < 2 {
		t.Errorf("%d RSA keys and %d of EdDSA", rsa, edwards)
	}
}

// GnuPG is asked where there is one: what it signs is accepted.
func TestOpenSignedByGnuPG(t *testing.T) {
	need.Need(t, need.Peers)
	gpg, err := exec.LookPath("gpg")
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"ed25519", "rsa2048"} {
		dir := t.TempDir()
		if err := os.Chmod(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		run := func(args ...string) []byte {
			t.Helper()
			cmd := exec.CommandContext(t.Context(), gpg, append([]string{"--homedir", dir, "--batch", "--no-tty", "--pinentry-mode", "loopback", "--passphrase", ""}, args...)...)
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("gpg %v: %v", args, err)
			}
			return out
		}
		t.Cleanup(func() { _ = exec.Command("gpgconf", "--homedir", dir, "--kill", "all").Run() })
		run("--quick-gen-key", "test", kind, "sign", "never")
		file := filepath.Join(dir, "text")
		if err := os.WriteFile(file, []byte("Suite: x\n- dash\nend\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		run("--clearsign", file)
		message, err := os.ReadFile(file + ".asc")
		if err != nil {
			t.Fatal(err)
		}
		keys, err := parseKeyring(run("--export"))
		if err != nil {
			t.Fatal(err)
		}
		if text, err := keys.openSigned(message, time.Now()); err != nil || string(text) != "Suite: x\n- dash\nend\n" {
			t.Errorf("%s: %q, error %v", kind, text, err)
		}
	}
}

func FuzzOpenSigned(f *testing.F) {
	own := upstream.NewSigner(1)
	keys, err := parseKeyring(own.Packet)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(own.ClearSigned("a\n", 0)))
	f.Add([]byte(own.ClearSigned("a\n", 9)))
	f.Fuzz(func(t *testing.T, data []byte) {
		text, err := keys.openSigned(data, time.Unix(100, 0))
		// Only what the key has signed can be opened, and that is one of the seeds.
		if err == nil && string(text) != "a\n" {
			t.Errorf("opened %q", text)
		}
	})
}

func FuzzKeyring(f *testing.F) {
	f.Add(upstream.NewSigner(1).Packet)
	f.Add(debianKeys[:4000])
	f.Fuzz(func(_ *testing.T, data []byte) { _, _ = parseKeyring(data) })
}
