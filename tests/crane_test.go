// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"

	"github.com/google/go-containerregistry/pkg/crane"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/rogpeppe/go-internal/testscript"
)

// crane digest|id REF: prints the digest of the manifest, or of the config, of an image in
// a registry, every blob of which has been fetched and checked.
// crane copy REF REF: from one name to another.
// crane push ARCHIVE REF: what `docker save` would have written.
func craneCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: crane digest|id REF, crane copy REF REF, crane push ARCHIVE REF")
	}
	switch args[0] {
	case "digest", "id":
		img, err := crane.Pull(args[1])
		ts.Check(err)
		ts.Check(validate.Image(img))
		sum := v1.Image.Digest
		if args[0] == "id" {
			sum = v1.Image.ConfigName
		}
		d, err := sum(img)
		ts.Check(err)
		fmt.Fprintln(ts.Stdout(), d)
	case "copy":
		ts.Check(crane.Copy(args[1], args[2]))
	case "push":
		img, err := crane.Load(ts.MkAbs(args[1]))
		ts.Check(err)
		ts.Check(crane.Push(img, args[2]))
	default:
		ts.Fatalf("crane has no %s here", args[0])
	}
}
