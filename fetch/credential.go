// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"

	"sbx/reference"
)

// Credential is what convinces a registry. The zero value is nobody.
type Credential struct {
	Username string
	Password string
	// IdentityToken stands for the password where the token server has given one.
	IdentityToken string
}

func (c Credential) isZero() bool { return c == Credential{} }

// basic is the value of the Authorization header (RFC 7617).
func (c Credential) basic() string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(c.Username+":"+c.Password))
}

// check refuses what could not be sent.
func (c Credential) check() error {
	for i := range len(c.Username) {
		if c.Username[i] < ' ' || c.Username[i] == 0x7f {
			return errors.New("the user name holds control characters")
		}
	}
	return nil
}

// Login tells a registry the credential and returns what to keep of it: the password is
// replaced by an identity token if the registry's token server gives one. Errors are
// *Error; the Status of a refused credential is 401.
func Login(ctx context.Context, host string, given Credential, o Options) (Credential, error) {
	o = o.withDefaults()
	op := "log in to " + host
	if err := given.check(); err != nil {
		return Credential{}, &Error{Op: op, Cause: err}
	}
	at := registryHost(host)
	c, err := newClient(at, false, o.at(host))
	if err != nil {
		return Credential{}, &Error{Op: op, Registry: at, Cause: err}
	}
	defer c.close()
	s := c.newSession(at, given, o.at(host))
	if err = s.open(ctx); err == nil {
		err = s.verify(ctx)
	}
	if err != nil {
		return Credential{}, explainLogin(op, at, err)
	}
	if s.identity != "" {
		given.Password, given.IdentityToken = "", s.identity
	}
	return given, nil
}

// explainLogin adds to a refusal what is most likely wrong.
func explainLogin(op, host string, err error) error {
	var e *Error
	if err = explain(op, host, reference.Ref{}, err); errors.As(err, &e) && (e.Status == 401 || e.Status == 403) {
		e.hint = "check user name and password"
		if host == hubRegistry {
			e.hint += "; with two-factor authentication, Docker Hub wants an access token in place of the password"
		}
	}
	return err
}

// registryHost is where the registry that references call domain is reached.
func registryHost(domain string) string {
	if domain == hubDomain {
		return hubRegistry
	}
	return domain
}

// credential asks o for what convinces a registry. What cannot be read is no reason not to
// try without: the error is kept for the refusal.
func (o Options) credential(ctx context.Context, host, path string) (Credential, error) {
	if o.Credentials == nil {
		return Credential{}, nil
	}
	c, err := o.Credentials(ctx, host, path)
	if err == nil {
		err = c.check()
	}
	if err != nil {
		return Credential{}, fmt.Errorf("the credentials for %s could not be read: %w", host, err)
	}
	return c, nil
}
