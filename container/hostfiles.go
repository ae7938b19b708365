// SPDX-License-Identifier: Apache-2.0

package container

import (
	"fmt"
	"slices"
	"strings"

	"sbx/slirp"
)

// hostFile is a file under /etc that says where the container is. It is made
// anew at every start and bound over the image's, so that an image never
// carries it.
type hostFile struct{ name, text string }

func hostFiles(c *Config, net *NetworkState) []hostFile {
	files := []hostFile{{"hostname", c.Hostname + "\n"}, {"hosts", hosts(c, net)}}
	switch {
	case c.Network == NetworkHost:
		files = append(files, hostFile{"resolv.conf", readHostFile("/etc/resolv.conf")})
	case len(net.Places) > 0:
		files = append(files, hostFile{"resolv.conf", resolvConf(&c.Networking, net)})
	}
	// Without a network there is nobody to ask, and the image's stays.
	return files
}

// resolvConf is the container's resolv.conf(5): names are asked of the engine,
// which asks the host's resolvers as they are then. Domains and options are the
// host's, unless flags name others.
func resolvConf(n *Networking, net *NetworkState) string {
	host := slirp.ParseResolvConf([]byte(readHostFile("/etc/resolv.conf")))
	var b strings.Builder
	if n.usesResolver() {
		fmt.Fprintf(&b, "nameserver %s\n", net.Places[0].DNS)
	} else {
		for _, s := range n.DNS {
			fmt.Fprintf(&b, "nameserver %s\n", s)
		}
	}
	search, options := host.Search, host.Options
	if len(n.DNSSearch) > 0 {
		search = n.DNSSearch
	}
	// "." alone is Docker's way to say: none.
	if len(search) > 0 && !slices.Equal(search, []string{"."}) {
		fmt.Fprintf(&b, "search %s\n", strings.Join(search, " "))
	}
	if len(n.DNSOptions) > 0 {
		options = n.DNSOptions
	}
	// A name of a container has no dot, and is tried as it is first, as on Docker.
	if len(n.Endpoints) > 0 && len(n.DNSOptions) == 0 {
		options = append(slices.Clone(options), "ndots:0")
	}
	if len(options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(options, " "))
	}
	return b.String()
}

func hosts(c *Config, net *NetworkState) string {
	if c.Network == NetworkHost {
		text := readHostFile("/etc/hosts")
		if text != "" {
			if !strings.HasSuffix(text, "\n") {
				text += "\n"
			}
			return text + net.hostsFile(c)
		}
	}
	own := net.hostsFile(c)
	if len(net.Places) == 0 {
		name := c.Hostname
		if c.Domainname != "" {
			name += "." + c.Domainname + " " + c.Hostname
		}
		own += "127.0.0.1\t" + name + "\n"
	}
	return strings.Join([]string{
		"127.0.0.1\tlocalhost",
		"::1\tlocalhost ip6-localhost ip6-loopback",
		"fe00::\tip6-localnet",
		"ff00::\tip6-mcastprefix",
		"ff02::1\tip6-allnodes",
		"ff02::2\tip6-allrouters",
	}, "\n") + "\n" + own
}

func readHostFile(name string) string {
	data, err := readFile(name)
	if err != nil {
		return ""
	}
	return string(data)
}
