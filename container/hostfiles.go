// SPDX-License-Identifier: Apache-2.0

package container

import "strings"

// hostFile is a file under /etc that says where the container is. It is made
// anew at every start and bound over the image's, so that an image never
// carries it.
type hostFile struct{ name, text string }

func hostFiles(c *Config) []hostFile {
	files := []hostFile{{"hostname", c.Hostname + "\n"}, {"hosts", hosts(c)}}
	if c.Network == NetworkHost {
		// Without a network there is nobody to ask, and the image's stays.
		files = append(files, hostFile{"resolv.conf", readHostFile("/etc/resolv.conf")})
	}
	return files
}

func hosts(c *Config) string {
	if c.Network == NetworkHost {
		if text := readHostFile("/etc/hosts"); text != "" {
			return text
		}
	}
	name := c.Hostname
	if c.Domainname != "" {
		name += "." + c.Domainname + " " + c.Hostname
	}
	return strings.Join([]string{
		"127.0.0.1\tlocalhost",
		"::1\tlocalhost ip6-localhost ip6-loopback",
		"fe00::\tip6-localnet",
		"ff00::\tip6-mcastprefix",
		"ff02::1\tip6-allnodes",
		"ff02::2\tip6-allrouters",
		"127.0.0.1\t" + name,
	}, "\n") + "\n"
}

func readHostFile(name string) string {
	data, err := readFile(name)
	if err != nil {
		return ""
	}
	return string(data)
}
