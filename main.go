// SPDX-License-Identifier: Apache-2.0

// Command sbx runs containers for users without privileges, with Docker's
// command line: no root, no daemon, no helper program.
package main

import (
	"os"

	"sbx/build"
	"sbx/cli"
	"sbx/container"
	"sbx/store"
	"sbx/userns"
)

func main() {
	userns.RefuseSetID()
	userns.Dispatch(map[string]userns.Role{
		"monitor":  container.Monitor,
		"unpack":   store.UnpackRole,
		"remove":   store.RemoveRole,
		"copy":     store.CopyRole,
		"transfer": container.Transfer,
		"diff":     store.DiffRole,
		"archive":  store.ArchiveRole,
		"pack":     build.PackRole,
	})
	os.Exit(cli.Main(os.Args, os.Stdin, os.Stdout, os.Stderr))
}
