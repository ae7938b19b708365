// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	maxAuthFile  = 8 << 20
	authFileMode = 0o600
	authDirMode  = 0o700
)

// authFile is a config.json of Docker or an auth.json of Podman. What this package does
// not know in it is kept to the letter.
type authFile struct {
	path    string
	fields  map[string]json.RawMessage // of the whole file
	auths   map[string]auth
	raw     map[string]json.RawMessage // of auths
	store   string                     // credsStore
	helpers map[string]string          // credHelpers
}

// auth is the entry of one registry.
type auth struct {
	Auth          string `json:"auth,omitempty"` // base64 of user:password
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
	IdentityToken string `json:"identitytoken,omitempty"`
}

// newAuth writes a credential as Docker does.
func newAuth(c Credential) auth {
	return auth{Auth: base64.StdEncoding.EncodeToString([]byte(c.Username + ":" + c.Password)), IdentityToken: c.IdentityToken}
}

// credential reads an entry. One without a secret is none.
func (a auth) credential() (Credential, error) {
	c := Credential{Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken}
	if a.Auth != "" {
		text, err := base64.StdEncoding.DecodeString(strings.TrimRight(a.Auth, "\x00"))
		user, password, ok := strings.Cut(string(text), ":")
		if err != nil || !ok {
			return Credential{}, errors.New("auth is not the base64 of USER:PASSWORD")
		}
		c.Username, c.Password = user, strings.Trim(password, "\x00")
	}
	if c.Password == "" && c.IdentityToken == "" {
		return Credential{}, nil
	}
	return c, nil
}

// readAuthFile reads a file; one that is missing is empty.
func readAuthFile(path string) (*authFile, error) {
	f := &authFile{path: path, fields: map[string]json.RawMessage{}, auths: map[string]auth{}, raw: map[string]json.RawMessage{}}
	fi, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, withoutPath(err))
	}
	if !fi.Mode().IsRegular() || fi.Size() > maxAuthFile {
		return nil, fmt.Errorf("read %s: not a file of at most %d MiB", path, maxAuthFile>>20)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, withoutPath(err))
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return f, nil
	}
	if err := f.parse(data); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return f, nil
}

func (f *authFile) parse(data []byte) error {
	if err := json.Unmarshal(data, &f.fields); err != nil {
		return fmt.Errorf("not JSON: %w", err)
	}
	for name, to := range map[string]any{"auths": &f.raw, "credsStore": &f.store, "credHelpers": &f.helpers} {
		if raw, ok := f.fields[name]; ok {
			if err := json.Unmarshal(raw, to); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	if f.raw == nil {
		f.raw = map[string]json.RawMessage{}
	}
	if f.fields == nil {
		f.fields = map[string]json.RawMessage{}
	}
	for key, raw := range f.raw {
		var a auth
		if err := json.Unmarshal(raw, &a); err != nil {
			return fmt.Errorf("auths: %s: %w", key, err)
		}
		f.auths[key] = a
	}
	return nil
}

// helperOf is the name of the helper that keeps a registry's credential, or "".
func (f *authFile) helperOf(host string) string {
	for _, key := range slices.Sorted(maps.Keys(f.helpers)) {
		if isKeyOf(key, host) {
			return f.helpers[key]
		}
	}
	return f.store
}

// keysOf are the entries of a registry; those of single repositories are not among them.
func (f *authFile) keysOf(host string) []string {
	var keys []string
	for key := range f.auths {
		if isKeyOf(key, host) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	if i := slices.Index(keys, keyOf(host)); i > 0 { // the present spelling first
		keys[0], keys[i] = keys[i], keys[0]
	}
	return keys
}

func (f *authFile) hasSecrets() bool {
	for _, a := range f.auths {
		if c, err := a.credential(); err != nil || !c.isZero() {
			return true
		}
	}
	return false
}

// put writes an entry and saves the file.
func (f *authFile) put(key string, a auth) error {
	raw, err := json.Marshal(a)
	if err != nil {
		return err
	}
	f.auths[key], f.raw[key] = a, raw
	return f.save()
}

func (f *authFile) drop(key string) {
	delete(f.auths, key)
	delete(f.raw, key)
}

// save replaces the file, durably and at once: whoever reads it meets the old state or the
// new. A symbolic link stays one.
func (f *authFile) save() error {
	raw, err := json.Marshal(f.raw) // its members are JSON already
	if err != nil {
		return err
	}
	f.fields["auths"] = raw
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "\t")
	if err := e.Encode(f.fields); err != nil {
		return err
	}
	if err := replaceFile(f.path, b.Bytes()); err != nil {
		return fmt.Errorf("write %s: %w", f.path, withoutPath(err))
	}
	return nil
}

func replaceFile(path string, data []byte) error {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	} else if link, err := os.Readlink(path); err == nil { // to a file that is not there yet
		if !filepath.IsAbs(link) {
			link = filepath.Join(filepath.Dir(path), link)
		}
		path = link
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, authDirMode); err != nil {
		return err
	}
	// O_EXCL, and 0600 whatever the umask.
	t, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	_, err = t.Write(data)
	err = errors.Join(err, t.Chmod(authFileMode), t.Sync(), t.Close())
	if err == nil {
		err = os.Rename(t.Name(), path)
	}
	if err != nil {
		os.Remove(t.Name())
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// withoutPath strips an error of the file's name, where the message has it already.
func withoutPath(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
