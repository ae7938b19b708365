// SPDX-License-Identifier: Apache-2.0

package container

import (
	"slices"
	"testing"
)

// TestCleanRanges: only what its file holds unchanged may be given back.
func TestCleanRanges(t *testing.T) {
	const smaps = `00400000-00b9b000 r-xp 00000000 fe:00 42      /usr/bin/sbx
Size:               7788 kB
Rss:                5292 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me sd
00b9b000-012e3000 r--p 0079b000 fe:00 42      /usr/bin/sbx
Rss:                4832 kB
Anonymous:             4 kB
012e3000-01364000 rw-p 00ee3000 fe:00 42      /usr/bin/sbx
Anonymous:             0 kB
01364000-013a4000 r--p 00000000 00:00 0
Anonymous:             0 kB
7f0000000000-7f0000021000 r--p 00000000 fe:00 43      /lib/a name
Anonymous:             0 kB
7ffc00000000-7ffc00002000 r-xp 00000000 00:00 0      [vdso]
Anonymous:             0 kB
zz-01364000 r--p 00ee3000 fe:00 42      /usr/bin/sbx
Anonymous:             0 kB
7f1000000000-7f1000021000 r--p 00000000 fe:00 43      /lib/name
Anonymous:             0 kB
`
	want := []addresses{{0x400000, 0xb9b000}, {0x7f1000000000, 0x7f1000021000}}
	if got := cleanRanges([]byte(smaps)); !slices.Equal(got, want) {
		t.Errorf("cleanRanges() = %x, want %x", got, want)
	}
}
