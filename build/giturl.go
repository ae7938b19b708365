// SPDX-License-Identifier: Apache-2.0

package build

import (
	"regexp"
	"strings"
	"sync"
)

// gitRef is a git repository and what of it is meant, as BuildKit reads it from
// URL#ref:subdirectory.
type gitRef struct {
	remote string
	ref    string // branch, tag or commit; "" for the remote's HEAD
	subdir string
}

// scpLike is user@host:path, which ssh takes.
var scpLike = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[A-Za-z0-9._-]+@[A-Za-z0-9.-]+:[^\s]+$`)
})

// isGit reports whether a source or context is a git repository: one of git's own
// protocols, or a URL whose path ends in .git. (A URL of another form is a file.)
func isGit(src string) bool {
	base, _, _ := strings.Cut(src, "#")
	base, _, _ = strings.Cut(base, "?")
	switch {
	case strings.HasPrefix(base, "git://"), strings.HasPrefix(base, "ssh://"), strings.HasPrefix(base, "git@"):
		return true
	case strings.HasPrefix(base, "http://"), strings.HasPrefix(base, "https://"):
		return strings.HasSuffix(base, ".git")
	case strings.HasPrefix(base, "github.com/"):
		return true
	}
	return scpLike().MatchString(base)
}

// IsGit reports whether a build context is a git repository. One of this machine
// is named by a URL: a path is a directory.
func IsGit(context string) bool {
	remote, _, _ := strings.Cut(context, "#")
	return isGit(context) || strings.HasPrefix(remote, "file://") && strings.HasSuffix(remote, ".git")
}

func parseGit(src string) gitRef {
	remote, fragment, _ := strings.Cut(src, "#")
	ref, subdir, _ := strings.Cut(fragment, ":")
	if strings.HasPrefix(remote, "github.com/") {
		remote = "https://" + remote
	}
	return gitRef{remote: remote, ref: ref, subdir: strings.Trim(subdir, "/")}
}
