// SPDX-License-Identifier: Apache-2.0

package build

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"

	"sbx/userns"
)

// packAnswer is that of the role. A source at fault keeps being one.
type packAnswer struct {
	SourceError string
}

// PackRole writes the tar of a COPY to a pipe, as root of the user's IDs: files
// of an image may belong to any of them.
func PackRole(ctx context.Context, c *userns.Conn) error {
	return userns.Answer(answerPack)(ctx, c)
}

func answerPack(ctx context.Context, job packJob, files []*os.File) (packAnswer, error) {
	if len(files) != 1 {
		return packAnswer{}, errors.New("pack files: bad question")
	}
	w := bufio.NewWriterSize(struct{ io.Writer }{files[0]}, 256<<10)
	err := pack(ctx, w, &job)
	if err == nil {
		err = w.Flush()
	}
	var source *SourcePathError
	if errors.As(err, &source) {
		return packAnswer{SourceError: source.Error()}, nil
	}
	return packAnswer{}, err
}

func packByRole(ctx context.Context, rung userns.Rung, w io.Writer, job packJob) error {
	pipeR, pipeW, err := os.Pipe()
	if err != nil {
		return err
	}
	copied := make(chan error, 1)
	go func() {
		_, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{pipeR}, make([]byte, 256<<10))
		pipeR.Close() // who cannot be told more ends
		copied <- err
	}()
	answer, err := userns.Call[packJob, packAnswer](ctx, rung, "pack", job, pipeW)
	pipeW.Close()
	if copyErr := <-copied; copyErr != nil && err == nil {
		err = copyErr
	}
	if err == nil && answer.SourceError != "" {
		err = &SourcePathError{errors.New(answer.SourceError)}
	}
	return err
}
