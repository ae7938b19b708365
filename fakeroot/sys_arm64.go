// SPDX-License-Identifier: Apache-2.0

package fakeroot

import "golang.org/x/sys/unix"

const sysNewfstatat = unix.SYS_FSTATAT
