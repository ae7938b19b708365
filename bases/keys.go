// SPDX-License-Identifier: Apache-2.0

package bases

import _ "embed" // the keys of Debian's archive

//go:embed keys/debian-archive-keyring.gpg
var debianKeys []byte
