// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/term"

	"sbx/fetch"
)

func loginCommand() command {
	return command{
		name: "login", summary: "Authenticate to a registry", usage: "[OPTIONS] [SERVER]", max: 1,
		bind: func() ([]option, action) {
			o := &loginOptions{}
			return o.flags(), o.run
		},
	}
}

type loginOptions struct {
	user     string
	password given
	stdin    bool
}

func (o *loginOptions) flags() []option {
	return []option{
		{name: "password", short: "p", kind: "string", usage: "Password or Personal Access Token (PAT)", value: &o.password},
		switchFlag(&o.stdin, "password-stdin", "", "Take the Password or Personal Access Token (PAT) from stdin"),
		textFlag(&o.user, "username", "u", "Username"),
	}
}

func (o *loginOptions) run(ctx context.Context, c *client, operands []string) error {
	host, err := registryArgument(operands)
	if err != nil {
		return err
	}
	if err := o.check(c); err != nil {
		return err
	}
	options, err := c.fetchOptions(ocispec.Platform{})
	if err != nil {
		return err
	}
	keyring := fetch.OpenKeyring(c.lookup)
	for _, file := range keyring.Exposed() {
		c.notice("WARNING: %s holds passwords and others can read it: chmod 600 %s", file, file)
	}
	return interruptible(ctx, func(ctx context.Context) error {
		stored, err := keyring.Get(ctx, host, "")
		if err != nil {
			c.notice("WARNING: %v", err)
		}
		wanted := o.user == "" && !o.password.ok && !o.stdin
		if wanted && stored != (fetch.Credential{}) {
			fmt.Fprintln(c.err, "Authenticating with existing credentials...")
			if _, err := fetch.Login(ctx, host, stored, options); err == nil {
				c.print("Login Succeeded\n")
				return nil
			}
			fmt.Fprintln(c.err, "Login did not succeed with them.")
		}
		given, err := o.credential(ctx, c, stored.Username)
		if err != nil {
			return err
		}
		kept, err := fetch.Login(ctx, host, given, options)
		if err != nil {
			return err
		}
		helper, file, err := keyring.Put(ctx, host, kept)
		if err != nil {
			return err
		}
		if helper == "" {
			fmt.Fprintf(c.err, "\nWARNING! Your credentials are stored unencrypted in '%s'.\nConfigure a credential helper to remove this warning. See\nhttps://docs.docker.com/go/credential-store/\n\n", printable(file))
		}
		c.print("Login Succeeded\n")
		return nil
	})
}

// check holds the flags against each other, and says what is unwise.
func (o *loginOptions) check(c *client) error {
	switch {
	case o.password.ok && o.stdin:
		return errors.New("--password and --password-stdin are mutually exclusive")
	case o.stdin && o.user == "":
		return errors.New("the --password-stdin option requires --username to be set")
	case o.password.ok && o.password.text == "":
		return errors.New("password is empty")
	case o.password.ok:
		fmt.Fprintln(c.err, "WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
	}
	return nil
}

// credential is what the flags and standard input say, and the terminal for the rest.
func (o *loginOptions) credential(ctx context.Context, c *client, before string) (fetch.Credential, error) {
	given := fetch.Credential{Username: o.user, Password: o.password.text}
	if o.stdin {
		const most = 64 << 10
		b, err := io.ReadAll(io.LimitReader(c.in, most+1))
		if err != nil {
			return given, fmt.Errorf("read standard input: %w", withoutPath(err))
		}
		if len(b) > most {
			return given, fmt.Errorf("read standard input: a password of more than %d KiB", most>>10)
		}
		given.Password = strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	}
	if given.Username != "" && given.Password != "" {
		return given, nil
	}
	if o.stdin {
		return given, errors.New("password is empty")
	}
	if !isTerminal(c.in) {
		return given, &statusError{status: 1, err: errors.New("cannot perform an interactive login from a non TTY device"), hint: "name the user with -u and give the password with --password-stdin"}
	}
	var err error
	if given.Username == "" {
		prompt := "Username: "
		if before != "" {
			prompt = fmt.Sprintf("Username (%s): ", printable(before))
		}
		if given.Username, err = c.ask(ctx, prompt, false); err != nil {
			return given, err
		}
		if given.Username = or(strings.TrimSpace(given.Username), before); given.Username == "" {
			return given, errors.New("username is empty")
		}
	}
	if given.Password == "" {
		if given.Password, err = c.ask(ctx, "Password: ", true); err != nil {
			return given, err
		}
	}
	if given.Password == "" {
		return given, errors.New("password is empty")
	}
	return given, nil
}

// ask reads a line from the terminal; hidden, what is typed does not show, from the
// moment on that the prompt does. When ctx ends the terminal is as it was before.
func (c *client) ask(ctx context.Context, prompt string, hidden bool) (string, error) {
	type answer struct {
		line string
		err  error
	}
	fd := int(c.in.Fd())
	before, err := term.GetState(fd)
	if err == nil && hidden {
		_, err = term.MakeRaw(fd)
	}
	if err != nil {
		return "", fmt.Errorf("read from the terminal: %w", err)
	}
	answers := make(chan answer, 1)
	go func() {
		var a answer
		if hidden {
			keys := &keyReader{from: c.in}
			a.line, a.err = term.NewTerminal(terminalOf{keys, c.err}, "").ReadPassword(prompt)
			if keys.interrupted {
				a.err = interrupted(syscall.SIGINT)
			}
		} else {
			fmt.Fprint(c.err, prompt)
			a.line, a.err = bufio.NewReaderSize(c.in, 1).ReadString('\n')
			a.line = strings.TrimRight(a.line, "\r\n")
		}
		answers <- a
	}()
	select {
	case a := <-answers:
		a.err = errors.Join(a.err, term.Restore(fd, before))
		var end *statusError
		switch {
		case errors.As(a.err, &end):
			fmt.Fprintln(c.err)
			return "", end
		case a.err != nil:
			return "", fmt.Errorf("read from the terminal: %w", withoutPath(a.err))
		}
		return a.line, nil
	case <-ctx.Done():
		err := term.Restore(fd, before)
		fmt.Fprintln(c.err)
		return "", errors.Join(context.Cause(ctx), err)
	}
}

// terminalOf is a terminal whose keys and screen are two files.
type terminalOf struct {
	io.Reader
	io.Writer
}

// keyReader reads one key after the other and notes ctrl-c, which is no signal while a
// password is typed.
type keyReader struct {
	from        io.Reader
	interrupted bool
}

// Read implements io.Reader.
func (k *keyReader) Read(p []byte) (int, error) {
	n, err := k.from.Read(p[:min(1, len(p))])
	const ctrlC = 3
	k.interrupted = k.interrupted || n > 0 && p[0] == ctrlC
	return n, err
}

func logoutCommand() command {
	return command{
		name: "logout", summary: "Log out from a registry", usage: "[SERVER]", max: 1,
		bind: func() ([]option, action) { return nil, logout },
	}
}

// logout forgets a credential. That there was none is no failure, as on Docker.
func logout(ctx context.Context, c *client, operands []string) error {
	host, err := registryArgument(operands)
	if err != nil {
		return err
	}
	return interruptible(ctx, func(ctx context.Context) error {
		had, err := fetch.OpenKeyring(c.lookup).Drop(ctx, host)
		switch {
		case err != nil:
			return fmt.Errorf("log out of %s: %w", host, err)
		case had:
			c.print("Removing login credentials for %s\n", host)
		default:
			c.print("Not logged in to %s\n", host)
		}
		return nil
	})
}
