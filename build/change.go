// SPDX-License-Identifier: Apache-2.0

package build

import (
	"fmt"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

// Change applies Dockerfile instructions to the configuration of an image, as the
// --change of commit and import takes them: those that need no container. What
// history there is stays as it is.
func Change(image *dockerspec.DockerOCIImage, changes []string) error {
	for _, text := range changes {
		if err := change(image, text); err != nil {
			return fmt.Errorf("change %.200q: %w", text, err)
		}
	}
	return nil
}

func change(image *dockerspec.DockerOCIImage, text string) error {
	d, err := parse("--change", []byte("FROM scratch\n"+text+"\n"))
	if err != nil {
		return plainError(err)
	}
	s := &stage{plan: &plan{file: d}, image: cloneImage(*image), env: variables(image.Config.Env)}
	history := s.image.History
	if len(d.stages) > 1 {
		return &changeError{"FROM"}
	}
	for _, cmd := range d.stages[0].Commands {
		switch cmd.(type) {
		case *instructions.CmdCommand, *instructions.EntrypointCommand, *instructions.EnvCommand, *instructions.ExposeCommand,
			*instructions.HealthCheckCommand, *instructions.LabelCommand, *instructions.OnbuildCommand, *instructions.StopSignalCommand,
			*instructions.UserCommand, *instructions.VolumeCommand, *instructions.WorkdirCommand:
		default:
			return &changeError{strings.ToUpper(cmd.Name())}
		}
		if err := s.instruction(cmd, false); err != nil {
			return plainError(err)
		}
	}
	s.image.Config.OnBuild = append(s.image.Config.OnBuild, s.onbuild...)
	s.image.History = history
	*image = s.image
	return nil
}

// plainError strips an error of the place in a file that the user has not written.
func plainError(err error) error {
	if source, ok := err.(*SourceError); ok && source.Err != nil { //nolint:errorlint // what wraps it names a place, too
		return source.Err
	}
	return err
}

// changeError says that an instruction is none that --change takes.
type changeError struct{ name string }

func (e *changeError) Error() string { return e.name + " is not a valid change command" }

// Hint lists those that are.
func (e *changeError) Hint() string {
	return "CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME and WORKDIR can be changed"
}
