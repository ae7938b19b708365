// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"runtime"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/bases"
	"sbx/reference"
	"sbx/store"
)

func bootstrapCommand() command {
	return command{
		name: "bootstrap", summary: "Make an image from a mirror of Debian or Ubuntu",
		usage: "[OPTIONS] SUITE", min: 1, max: 1,
		bind: func() ([]option, action) {
			o := &bootstrapOptions{}
			return o.flags(), o.run
		},
	}
}

type bootstrapOptions struct {
	arch, keyring, mirror, name, rung, variant string
	components, include                        []string
	quiet                                      bool
}

func (o *bootstrapOptions) flags() []option {
	return []option{
		textFlag(&o.arch, "arch", "", "Debian's name of an architecture (default this machine's)"),
		listFlag(&o.components, "components", "", `Components of the archive, by commas (default "main")`),
		listFlag(&o.include, "include", "", "Further packages, by commas"),
		textFlag(&o.keyring, "keyring", "", "File of the keys that may sign the suite"),
		textFlag(&o.mirror, "mirror", "", "URL to get packages from (default this machine's own mirror)"),
		switchFlag(&o.quiet, "quiet", "q", "Only print the image ID"),
		rungFlag(&o.rung),
		textFlag(&o.name, "tag", "t", `Name of the image (default "SUITE")`),
		textFlag(&o.variant, "variant", "", `What to install ("minbase", "standard") (default "minbase")`),
	}
}

func (o *bootstrapOptions) run(ctx context.Context, c *client, operands []string) error {
	suite := operands[0]
	switch o.variant {
	case "", bases.VariantMinbase, bases.VariantStandard:
	default:
		return &usageError{text: fmt.Sprintf("unknown variant %q", o.variant), hint: "there are " + bases.VariantMinbase + " and " + bases.VariantStandard, path: "sbx bootstrap"}
	}
	ref, err := reference.Parse(or(o.name, suite))
	if err != nil {
		return err
	}
	epoch, err := c.sourceDate()
	if err != nil {
		return err
	}
	home, err := c.open(ctx, o.rung)
	if err != nil {
		return err
	}
	options, err := c.fetchOptions(ocispec.Platform{})
	if err != nil {
		return err
	}
	f, err := c.config()
	if err != nil {
		return err
	}
	vendor := bases.VendorOf(suite)
	p := newProgress(c.err, o.quiet)
	b := bases.Bootstrap{
		Suite: suite, Mirror: o.mirror, Mirrors: f.Bases.Mirrors[vendor], Include: commas(o.include), Variant: o.variant, Arch: or(o.arch, bases.DebianArch(runtime.GOARCH)),
		Components: commas(o.components), Keyring: or(o.keyring, f.Bases.Keys[vendor]), Epoch: epoch, Fetch: options, Progress: func(text string) { p.line("%s", text) }, Event: p.event,
	}
	var img store.Image
	err = interruptible(ctx, func(ctx context.Context) error {
		var err error
		img, err = b.Make(ctx, home, ref.String())
		return err
	})
	p.end()
	if err != nil {
		c.printScript(err)
		return named("bootstrap "+suite, err)
	}
	if o.quiet {
		c.print("%s\n", img.ID)
	} else {
		c.print("%s %s\n", ref.Familiar(), img.ID)
	}
	return nil
}

// commas are the words of lists that are written with commas between them.
func commas(lists []string) []string {
	var words []string
	for _, list := range lists {
		words = append(words, strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })...)
	}
	return words
}
