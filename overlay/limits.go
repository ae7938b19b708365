// SPDX-License-Identifier: Apache-2.0

package overlay

// Limits bound what one archive may cost. A zero field means the default.
type Limits struct {
	Bytes      int64 // of the archive, and of the files in it
	Entries    int64 // of any kind
	Depth      int   // of directories
	PathBytes  int   // of a path
	XattrBytes int   // of all attributes of a file, with their names
}

// The defaults. The kernel takes no longer path than PATH_MAX, and the others
// are ten times what the largest images on public registries have.
const (
	defaultBytes      = 64 << 30
	defaultEntries    = 1 << 20
	defaultDepth      = 1024
	defaultPathBytes  = 4095
	defaultXattrBytes = 256 << 10
)

func (l Limits) filled() Limits {
	fill(&l.Bytes, defaultBytes)
	fill(&l.Entries, defaultEntries)
	fill(&l.Depth, defaultDepth)
	fill(&l.PathBytes, defaultPathBytes)
	fill(&l.XattrBytes, defaultXattrBytes)
	return l
}

func fill[N int | int64](field *N, value N) {
	if *field <= 0 {
		*field = value
	}
}

const (
	maxXattrName  = 255     // XATTR_NAME_MAX
	maxXattrValue = 1 << 16 // XATTR_SIZE_MAX

	// maxSparse is the largest file that may come in one of tar's sparse forms.
	// No image builder writes them; a few bytes of them name a file of any size.
	maxSparse = 64 << 20

	// maxLinks is how many symbolic links one path may lead through.
	maxLinks = 255

	// Looking up a path through links costs one step for each component. A layer
	// may use this many in all, and so many more for each of its entries; a
	// hostile one would make each of its entries cost a million.
	maxSteps      = 2 << 20
	stepsPerEntry = 64
)
