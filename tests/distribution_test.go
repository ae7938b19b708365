// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/bcrypt"
)

var listening = regexp.MustCompile(`listening on (127\.0\.0\.1:[0-9]+)`)

// distribution [-tls] [USER:PASSWORD...]: starts the reference registry on a port of
// 127.0.0.1, with a certificate of an authority of its own, or for these users only, and
// sets DISTRIBUTION to its address, DISTRIBUTION_DIR to its folder and DISTRIBUTION_CA to
// the authority's file.
func distributionCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("usage: distribution [-tls] [USER:PASSWORD...]")
	}
	dir, err := os.MkdirTemp(ts.MkAbs("."), "distribution")
	ts.Check(err)
	config := fmt.Sprintf("version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: %s\n  delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:0\n", dir)
	if len(args) > 0 && args[0] == "-tls" {
		args = args[1:]
		ts.Check(makeAuthority(dir))
		ts.Setenv("DISTRIBUTION_CA", filepath.Join(dir, "ca.pem"))
		config += fmt.Sprintf("  tls:\n    certificate: %[1]s/cert.pem\n    key: %[1]s/key.pem\n", dir)
	}
	if len(args) > 0 {
		ts.Check(writePasswords(filepath.Join(dir, "htpasswd"), args))
		config += fmt.Sprintf("auth:\n  htpasswd:\n    realm: test\n    path: %s/htpasswd\n", dir)
	}
	ts.Setenv("DISTRIBUTION_DIR", dir)
	file := filepath.Join(dir, "config.yml")
	ts.Check(os.WriteFile(file, []byte(config), 0o600))
	cmd := exec.Command("docker-registry", "serve", file)
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	said, err := cmd.StderrPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	ts.Defer(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	var log strings.Builder
	for lines := bufio.NewScanner(said); lines.Scan(); {
		log.WriteString(lines.Text() + "\n")
		if m := listening.FindStringSubmatch(lines.Text()); m != nil {
			ts.Setenv("DISTRIBUTION", m[1])
			go io.Copy(io.Discard, said)
			return
		}
	}
	ts.Fatalf("docker-registry did not start:\n%s", log.String())
}

func writePasswords(file string, users []string) error {
	var b bytes.Buffer
	for _, u := range users {
		name, password, _ := strings.Cut(u, ":")
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s:%s\n", name, hash)
	}
	return os.WriteFile(file, b.Bytes(), 0o600)
}

// makeAuthority makes ca.pem, and cert.pem and key.pem, which it has signed, for this
// machine's own addresses.
func makeAuthority(dir string) error {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	until := time.Now().Add(24 * time.Hour)
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "an authority of the lab"}, NotAfter: until, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "registry"}, NotAfter: until, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	for name, block := range map[string]*pem.Block{
		"ca.pem": {Type: "CERTIFICATE", Bytes: caDER}, "cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "EC PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// mkconfig FILE: writes a config.toml by which the running registry's authority is trusted.
func mkconfigCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: mkconfig FILE, after distribution -tls")
	}
	text := fmt.Sprintf("[registry.%q]\nca = %q\n", ts.Getenv("DISTRIBUTION"), ts.Getenv("DISTRIBUTION_CA"))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
}
