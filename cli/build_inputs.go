// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"sbx/build"
)

// maxSecret is what BuildKit takes of one secret.
const maxSecret = 500 << 10

// readSecrets reads --secret id=NAME[,src=FILE|,env=VARIABLE].
func (o *buildOptions) readSecrets(c *client) (map[string]build.Secret, error) {
	secrets := map[string]build.Secret{}
	for _, spec := range o.secrets {
		id, file, env, kind := "", "", "", ""
		for field := range strings.SplitSeq(spec, ",") {
			name, value, ok := strings.Cut(field, "=")
			if !ok {
				return nil, fmt.Errorf("invalid field '%s' must be a key=value pair", field)
			}
			switch strings.ToLower(name) {
			case "id":
				id = value
			case "type":
				kind = value
			case "src", "source":
				file = value
			case "env":
				env = value
			default:
				return nil, fmt.Errorf("unexpected key '%s' in '%s'", name, field)
			}
		}
		if id == "" {
			return nil, fmt.Errorf("invalid secret %q: it has no id", strings.SplitN(spec, ",", 2)[0])
		}
		if kind == "env" && env == "" {
			env, file = file, ""
		}
		data, err := c.readSecret(id, file, env, kind)
		if err != nil {
			return nil, fmt.Errorf("read secret %s: %w", id, err)
		}
		secrets[id] = build.Secret{Data: data}
	}
	return secrets, nil
}

func (c *client) readSecret(id, file, env, kind string) ([]byte, error) {
	if file == "" && kind != "file" {
		name := or(env, id)
		if value, ok := c.lookup(name); ok || env != "" || kind == "env" {
			if !ok {
				return nil, fmt.Errorf("the environment has no variable %s", name)
			}
			return []byte(value), nil
		}
	}
	data, err := os.ReadFile(or(file, id))
	if err != nil {
		return nil, err
	}
	if len(data) > maxSecret {
		return nil, fmt.Errorf("it is larger than %d bytes", maxSecret)
	}
	return data, nil
}

// readSSH reads --ssh default, ID, or ID=SOCKET.
func (o *buildOptions) readSSH(c *client) (map[string]string, error) {
	sockets := map[string]string{}
	for _, spec := range o.ssh {
		id, socket, _ := strings.Cut(spec, "=")
		if socket == "" {
			socket = c.variable("SSH_AUTH_SOCK")
		}
		if socket == "" {
			return nil, fmt.Errorf("invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set (--ssh %s)", spec)
		}
		fi, err := os.Stat(socket)
		if err != nil {
			return nil, fmt.Errorf("ssh agent socket %s: %w", socket, withoutPath(err))
		}
		if fi.Mode()&os.ModeSocket == 0 {
			return nil, &statusError{status: statusFailed, err: fmt.Errorf("--ssh %s: %s is no socket", spec, socket), hint: "load the key into an agent: ssh-add " + socket}
		}
		sockets[id] = socket
	}
	return sockets, nil
}

// readHosts makes lines of /etc/hosts of --add-host.
func (o *buildOptions) readHosts() ([]string, error) {
	var lines []string
	for _, spec := range o.hosts {
		name, address, ok := strings.Cut(spec, "=")
		if !ok {
			name, address, ok = strings.Cut(spec, ":")
		}
		address = strings.Trim(address, "[]")
		if !ok || name == "" {
			return nil, fmt.Errorf("invalid argument %q for \"--add-host\" flag: bad format for add-host: %q", spec, spec)
		}
		if _, err := netip.ParseAddr(address); err != nil {
			return nil, fmt.Errorf("invalid argument %q for \"--add-host\" flag: invalid IP address in add-host: %q", spec, address)
		}
		lines = append(lines, address+"\t"+name)
	}
	return lines, nil
}

// proxies are this machine's, as RUN gets them: in both spellings, as programs
// look for one or the other.
func (c *client) proxies() []string {
	var env []string
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"} {
		value := or(c.variable(name), c.variable(strings.ToLower(name)))
		if value != "" {
			env = append(env, name+"="+value, strings.ToLower(name)+"="+value)
		}
	}
	return env
}

// authorityFiles are where distributions keep the certificates that they trust.
var authorityFiles = []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"}

// authorities are the certificates that this machine trusts, or nothing.
func (c *client) authorities() []byte {
	for _, name := range append([]string{c.variable("SSL_CERT_FILE")}, authorityFiles...) {
		if name == "" {
			continue
		}
		data, err := os.ReadFile(name)
		if err == nil && len(data) <= maxAuthorities {
			return data
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil
		}
	}
	return nil
}

const maxAuthorities = 2 << 20
