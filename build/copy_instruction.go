// SPDX-License-Identifier: Apache-2.0

package build

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"sbx/reference"
)

func (s *stage) copyInstruction(c *instructions.CopyCommand, trigger bool) error {
	st := &copyStep{chown: c.Chown, chmod: c.Chmod, link: c.Link, parents: c.Parents, excludes: c.ExcludePatterns}
	if c.From != "" {
		from, err := s.source(c.From, c)
		if err != nil {
			return err
		}
		if !from.implied && from.index >= s.index {
			return fmt.Errorf("cannot copy from stage %q, it needs to be defined before current stage %q", c.From, s.label)
		}
		st.from = from
	}
	for _, src := range c.SourcePaths {
		if isGit(src) {
			return errors.New("source can't be a git ref for COPY")
		}
		if isURL(src) {
			return errors.New("source can't be a URL for COPY")
		}
	}
	return s.addCopy(c, st, c.SourcesAndDest, trigger)
}

func (s *stage) addInstruction(c *instructions.AddCommand, trigger bool) error {
	st := &copyStep{add: true, chown: c.Chown, chmod: c.Chmod, link: c.Link, excludes: c.ExcludePatterns, checksum: c.Checksum, unpack: c.Unpack}
	st.keepGit = c.KeepGitDir != nil && *c.KeepGitDir
	if c.Checksum != "" {
		if len(c.SourcePaths) != 1 {
			return errors.New("checksum can't be specified for multiple sources")
		}
		if !isURL(c.SourcePaths[0]) && !isGit(c.SourcePaths[0]) {
			return errors.New("checksum requires HTTP(S) or Git sources")
		}
		if !isGit(c.SourcePaths[0]) {
			if _, err := reference.ParseDigest(c.Checksum); err != nil {
				return err
			}
		}
	}
	return s.addCopy(c, st, c.SourcesAndDest, trigger)
}

func (s *stage) addCopy(c instructions.Command, st *copyStep, params instructions.SourcesAndDest, trigger bool) error {
	if st.link && !isNumericOwner(st.chown) {
		return fmt.Errorf("--chown=%s: user and group names can't be resolved when used with --link, use numeric uid[:gid] instead", st.chown)
	}
	if err := checkMode(st.chmod); err != nil {
		return err
	}
	st.sources, st.inline = params.SourcePaths, params.SourceContents
	if st.from == nil {
		s.checkIgnored(c, st)
	}
	st.dest = s.absolute(params.DestPath)
	text := strings.ToUpper(c.Name())
	if st.parents {
		text += " --parents"
	}
	if st.chown != "" {
		text += " --chown=" + st.chown
	}
	if st.chmod != "" {
		text += " --chmod=" + st.chmod
	}
	for _, src := range st.sources {
		text += " " + src
	}
	for _, src := range st.inline {
		text += " <<" + src.Path
	}
	name := s.display(fmt.Sprint(c), s.env, false)
	step := &step{stage: s, name: s.numbered(name, trigger), location: c.Location(), copy: st}
	s.steps = append(s.steps, step)
	s.record(text+" "+params.DestPath+" # buildkit", step)
	return nil
}

// absolute makes a destination absolute. It keeps the slash at the end, and gives
// one to what can only be a directory.
func (s *stage) absolute(dest string) string {
	dir := dest == "" || strings.HasSuffix(dest, "/") || strings.HasSuffix(dest, "/.") || dest == "."
	if !path.IsAbs(dest) {
		dest = path.Join("/", s.image.Config.WorkingDir, dest)
	}
	dest = path.Clean(dest)
	if dir && dest != "/" {
		dest += "/"
	}
	return dest
}

func isNumericOwner(chown string) bool {
	user, group, _ := strings.Cut(chown, ":")
	return strings.Trim(user, "0123456789") == "" && strings.Trim(group, "0123456789") == ""
}

// checkMode refuses what is neither an octal nor a symbolic mode.
func checkMode(mode string) error {
	if mode == "" {
		return nil
	}
	wrong := fmt.Errorf("invalid chmod parameter: '%s'. it should be octal string and between 0 and 07777", mode)
	if n, err := strconv.ParseUint(mode, 8, 32); err == nil {
		if n > 0o7777 {
			return wrong
		}
		return nil
	}
	if mode[0] >= '0' && mode[0] <= '9' {
		return wrong
	}
	_, err := symbolicMode(mode, 0, false)
	return err
}

// isURL reports whether a source is to be downloaded.
func isURL(src string) bool {
	return (strings.HasPrefix(src, "http://") || strings.HasPrefix(src, "https://")) && !isGit(src)
}
