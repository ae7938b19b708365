// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

const (
	helperPrefix    = "docker-credential-"
	maxHelperOutput = 1 << 20
	// helperDeadline leaves time to unlock a key ring.
	helperDeadline = 2 * time.Minute
	// tokenUser is the user name with which helpers keep identity tokens.
	tokenUser = "<token>"
)

// noCredential is how every helper says that it has none
// (docker-credential-helpers/credentials/error.go).
const noCredential = "credentials not found in native keychain"

// helperSecret is what a helper is told and what it answers.
type helperSecret struct {
	ServerURL string
	Username  string
	Secret    string
}

// ask gets a credential from a helper; zero if it has none.
func (k *Keyring) ask(ctx context.Context, name, key string) (Credential, error) {
	out, err := k.helper(ctx, name, "get", key)
	var failed *helperError
	if errors.As(err, &failed) && failed.said == noCredential {
		return Credential{}, nil
	}
	if err != nil {
		return Credential{}, err
	}
	var got helperSecret
	if err := json.Unmarshal(out, &got); err != nil {
		return Credential{}, fmt.Errorf("run %s%s get: the answer is not JSON", helperPrefix, name)
	}
	if got.Username == tokenUser {
		return Credential{IdentityToken: got.Secret}, nil
	}
	return Credential{Username: got.Username, Password: got.Secret}, nil
}

// tell hands a credential to a helper.
func (k *Keyring) tell(ctx context.Context, name, key string, c Credential) error {
	secret := helperSecret{ServerURL: key, Username: c.Username, Secret: c.Password}
	if c.IdentityToken != "" {
		secret.Username, secret.Secret = tokenUser, c.IdentityToken
	}
	input, err := json.Marshal(secret)
	if err != nil {
		return err
	}
	_, err = k.helper(ctx, name, "store", string(input))
	return err
}

// runHelper runs a credential helper that is found on PATH. It is the only kind of program
// that this package runs. A name that is not one word is none.
func runHelper(ctx context.Context, name, verb, input string) ([]byte, error) {
	if !plainWord(strings.ToLower(name)) {
		return nil, fmt.Errorf("run credential helper %q: not a name", name)
	}
	program := helperPrefix + name
	path, err := exec.LookPath(program)
	if err != nil {
		return nil, &hinted{
			text: fmt.Sprintf("run %s: it is not on PATH", program),
			hint: "Docker's configuration names it in credsStore or credHelpers: install it, or take it out there",
		}
	}
	ctx, cancel := context.WithTimeout(ctx, helperDeadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, verb)
	cmd.Stdin = strings.NewReader(input)
	cmd.WaitDelay = time.Second
	out, said := &limitedBuffer{}, &limitedBuffer{}
	cmd.Stdout, cmd.Stderr = out, said
	if err := cmd.Run(); err != nil {
		text := strings.TrimSpace(out.String()) // where the library of the helpers puts it
		if text == "" {
			text = strings.TrimSpace(said.String())
		}
		return nil, &helperError{program + " " + verb, trimMessage(text), err}
	}
	return out.Bytes(), nil
}

// helperError is a helper that failed.
type helperError struct {
	command string
	said    string
	cause   error
}

func (e *helperError) Error() string {
	if e.said != "" {
		return "run " + e.command + ": " + clean(e.said)
	}
	return "run " + e.command + ": " + e.cause.Error()
}

func (e *helperError) Unwrap() error { return e.cause }

// limitedBuffer keeps the beginning of what is written to it.
type limitedBuffer struct{ bytes.Buffer }

// Write implements io.Writer.
func (b *limitedBuffer) Write(p []byte) (int, error) {
	if room := maxHelperOutput - b.Len(); room < len(p) {
		b.Buffer.Write(p[:max(room, 0)])
		return len(p), nil
	}
	return b.Buffer.Write(p)
}
