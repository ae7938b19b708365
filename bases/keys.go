// SPDX-License-Identifier: Apache-2.0

package bases

import _ "embed" // keys, whose origin keys/README.md tells

//go:embed keys/debian-archive-keyring.gpg
var debianKeys []byte

//go:embed keys/ubuntu-archive-key-2018.gpg
var ubuntuKeys []byte

//go:embed keys/archlinux-release-key.gpg
var archKeys []byte
