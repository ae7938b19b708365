// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/reference"
)

const (
	// putAtOnce is the largest rest of a blob that goes out with the request that ends its
	// upload.
	putAtOnce = 1 << 20
	// smallChunk is how much one request carries where larger ones were refused.
	smallChunk = 16 << 20
	// maxMounts bounds the repositories that one blob is looked for in.
	maxMounts = 3
)

// upload brings one blob to the registry (distribution-spec, "Pushing blobs").
type upload struct {
	*delivery
	d      ocispec.Descriptor
	digest reference.Digest
	quiet  bool // a config: Docker shows no line for it

	file     *os.File
	location *url.URL // where the upload goes on; nil before it has begun
	at       int64    // what the registry has
	chunk    int64    // the most that one request carries; 0: no bound
	failures int      // in a row
	best     int64    // how far it has come at the last failure
}

func (u *upload) tell(status string, current int64) {
	if u.o.Progress != nil && !u.quiet {
		u.o.Progress(PushEvent{Digest: u.digest, Status: status, Current: current, Total: u.d.Size})
	}
}

func (u *upload) run(ctx context.Context) error {
	if isForeignType(u.d.MediaType) {
		u.tell(StatusForeign, 0)
		return nil
	}
	there, err := u.exists(ctx)
	if err != nil {
		return err
	}
	if there {
		u.tell(StatusThere, 0)
		return nil
	}
	from, err := u.mount(ctx)
	if err != nil {
		return err
	}
	if from != "" {
		u.tell(statusMounted+from, 0)
		return nil
	}
	if u.file, err = u.src.Blob(u.digest); err != nil {
		return err
	}
	defer u.file.Close()
	if fi, err := u.file.Stat(); err != nil || fi.Size() != u.d.Size {
		return fmt.Errorf("the stored blob has not the %d bytes that the image says", u.d.Size)
	}
	for {
		done, err := u.step(ctx)
		if done || err != nil {
			return err
		}
	}
}

// exists asks for the blob by HEAD.
func (u *upload) exists(ctx context.Context) (bool, error) {
	resp, err := u.client.send(ctx, http.MethodHead, u.url("blobs", u.digest.String()), nil, nil)
	if err != nil {
		return false, err
	}
	switch resp.StatusCode {
	case http.StatusOK:
		resp.Body.Close()
		return true, nil
	case http.StatusNotFound:
		resp.Body.Close()
		return false, nil
	}
	return false, u.client.readStatus(resp)
}

// mount asks the registry to take the blob from another of its repositories and returns
// which one it was, or "". A refusal is the beginning of an upload, so it costs nothing.
func (u *upload) mount(ctx context.Context) (string, error) {
	tried := 0
	for _, from := range u.o.Holders[u.digest] {
		if from == u.path || u.location != nil || tried == maxMounts {
			continue
		}
		tried++
		ask := u.url("blobs", "uploads/")
		ask.RawQuery = url.Values{"mount": {u.digest.String()}, "from": {from}}.Encode()
		resp, err := u.send(ctx, http.MethodPost, ask, nil, 0, 0)
		if err != nil {
			return "", err
		}
		resp.Body.Close()
		switch resp.StatusCode {
		case http.StatusCreated:
			return from, nil
		case http.StatusAccepted:
			if err := u.moved(resp); err != nil {
				return "", err
			}
		}
	}
	return "", nil
}

// step does the next thing and reports whether the blob is there. Its error ends the
// upload.
func (u *upload) step(ctx context.Context) (done bool, err error) {
	if u.location == nil {
		return false, u.begin(ctx)
	}
	rest := u.d.Size - u.at
	last := rest <= putAtOnce
	n := rest
	if u.chunk > 0 && !last {
		n = min(n, u.chunk)
	}
	resp, err := u.sendPart(ctx, last, n)
	if err != nil {
		return u.recover(ctx, err, last)
	}
	status := resp.StatusCode
	switch {
	case last && (status == http.StatusCreated || status == http.StatusNoContent):
		resp.Body.Close()
		u.tell(StatusPushed, u.d.Size)
		return true, nil
	case !last && (status == http.StatusAccepted || status == http.StatusNoContent || status == http.StatusCreated):
		resp.Body.Close()
		before := u.at
		if err := u.moved(resp); err != nil {
			return false, err
		}
		u.at = received(resp.Header.Get("Range"), before+n)
		if u.at <= before || u.at > before+n {
			return u.recover(ctx, fmt.Errorf("PATCH %s: the registry has taken %d bytes of %d: %w", publicURL(u.location), u.at-before, n, io.ErrUnexpectedEOF), false)
		}
		return false, nil
	case status == http.StatusRequestEntityTooLarge && n > smallChunk:
		resp.Body.Close()
		u.chunk = smallChunk
		return false, u.inquire(ctx)
	case status == http.StatusBadRequest && last:
		refused := u.client.readStatus(resp)
		if err := u.verifyStored(); err != nil {
			return false, err
		}
		return false, refused
	case retryableStatus(status), status == http.StatusNotFound, status == http.StatusUnauthorized, status == http.StatusRequestedRangeNotSatisfiable:
		return u.recover(ctx, u.client.readStatus(resp), last)
	}
	return false, u.client.readStatus(resp)
}

// begin opens an upload.
func (u *upload) begin(ctx context.Context) error {
	resp, err := u.send(ctx, http.MethodPost, u.url("blobs", "uploads/"), nil, 0, 0)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusAccepted {
		return u.client.readStatus(resp)
	}
	resp.Body.Close()
	u.at = 0
	return u.moved(resp)
}

// sendPart sends n bytes: in a PATCH, or in the PUT that ends the upload.
func (u *upload) sendPart(ctx context.Context, last bool, n int64) (*http.Response, error) {
	at := *u.location
	header := http.Header{"Content-Type": {"application/octet-stream"}}
	method := http.MethodPatch
	if last {
		method = http.MethodPut
		query := at.Query()
		query.Set("digest", u.digest.String())
		at.RawQuery = query.Encode()
	}
	if !last && (u.at > 0 || u.chunk > 0) {
		header.Set("Content-Range", fmt.Sprintf("%d-%d", u.at, u.at+n-1))
	}
	return u.send(ctx, method, &at, header, u.at, n)
}

// recover decides what to do after a part that has failed: look what came through, and go
// on from there, unless it has failed too often.
func (u *upload) recover(ctx context.Context, cause error, last bool) (done bool, err error) {
	var status *statusError
	answered := errors.As(cause, &status)
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	if !answered && !retryable(ctx, cause) {
		return false, cause
	}
	if u.at-u.best >= progressStep {
		u.failures = 0
	}
	u.best = max(u.best, u.at)
	if u.failures++; u.failures >= maxTries {
		return false, cause
	}
	wait := pause(u.failures)
	if answered && status.retryAfter > 0 {
		if wait = status.retryAfter; wait > longestRetryAfter {
			return false, cause
		}
		u.client.guard.tellWait(u.client.guard.home, fmt.Sprintf("%d %s", status.status, http.StatusText(status.status)), wait)
	}
	if err := u.client.guard.clock.sleep(ctx, wait); err != nil {
		return false, err
	}
	if last {
		// The request that ends an upload may have done so before it failed.
		if there, err := u.exists(ctx); there || err != nil {
			if there {
				u.tell(StatusPushed, u.d.Size)
			}
			return there, err
		}
	}
	if answered && status.status == http.StatusNotFound {
		u.location = nil // the registry has forgotten this upload
		return false, nil
	}
	return false, u.inquire(ctx)
}

// inquire asks how much of the upload has arrived. If that cannot be told, it begins anew.
func (u *upload) inquire(ctx context.Context) error {
	resp, err := u.send(ctx, http.MethodGet, u.location, nil, 0, 0)
	if err != nil {
		return err
	}
	resp.Body.Close()
	u.at = received(resp.Header.Get("Range"), -1)
	if resp.StatusCode != http.StatusNoContent && resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusAccepted || u.at < 0 || u.at > u.d.Size {
		u.location = nil
		return nil
	}
	if resp.Header.Get("Location") == "" {
		return nil
	}
	return u.moved(resp)
}

// received reads a Range header, "0-LAST". Empty uploads are said to have 0-0, too, which
// one byte more or less does not make wrong: the registry would refuse the gap.
func received(header string, otherwise int64) int64 {
	first, last, ok := strings.Cut(strings.TrimPrefix(header, "bytes="), "-")
	n, isCount := parseCount(last)
	if !ok || first != "0" || !isCount {
		return otherwise
	}
	if n == 0 {
		return 0
	}
	return n + 1
}

// moved takes the place where the upload goes on from an answer.
func (u *upload) moved(resp *http.Response) error {
	asked := resp.Request.URL
	text := resp.Header.Get("Location")
	if text == "" {
		return fmt.Errorf("%s %s: the registry does not say where to upload to", resp.Request.Method, publicURL(asked))
	}
	next, err := asked.Parse(text)
	if err != nil {
		return fmt.Errorf("%s %s: the registry wants the upload at %.200q, which is no URL", resp.Request.Method, publicURL(asked), text)
	}
	if next.Scheme == "http" && asked.Scheme == "https" && !strings.EqualFold(next.Host, u.host) {
		return &policyError{text: fmt.Sprintf("refuse to upload from https to %s", publicURL(next))}
	}
	u.location = next
	return nil
}

// send sends one request, with n bytes of the blob from at on if n is not 0, and follows
// redirects that keep the method.
func (u *upload) send(ctx context.Context, method string, to *url.URL, header http.Header, at, n int64) (*http.Response, error) {
	h := http.Client{Transport: u.client.through, CheckRedirect: stayHere}
	for hops := 0; ; hops++ {
		req, err := http.NewRequestWithContext(ctx, method, to.String(), nil)
		if err != nil {
			return nil, err
		}
		for name, values := range header {
			req.Header[name] = values
		}
		if n > 0 {
			req.Body = &part{u: u, r: io.NewSectionReader(u.file, at, n), at: at}
			req.ContentLength = n
		}
		resp, err := h.Do(req)
		if err != nil {
			return nil, err
		}
		if status := resp.StatusCode; status != http.StatusTemporaryRedirect && status != http.StatusPermanentRedirect {
			return resp, nil
		}
		resp.Body.Close()
		if hops == maxHops {
			return nil, &policyError{text: fmt.Sprintf("%s %s: more than %d redirects", method, publicURL(to), maxHops)}
		}
		before := u.location
		if err := u.moved(resp); err != nil {
			return nil, err
		}
		to, u.location = u.location, before
	}
}

// part is what one request carries.
type part struct {
	u  *upload
	r  *io.SectionReader
	at int64
}

// Read implements io.Reader.
func (p *part) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.at += int64(n)
	p.u.tell(StatusPushing, p.at)
	return n, err
}

// Close implements io.Closer. The file is read again if the part fails.
func (p *part) Close() error { return nil }

// verifyStored hashes the blob here, when the registry says that it is not what it should
// be.
func (u *upload) verifyStored() error {
	h := sha256.New()
	if u.digest.Algorithm() == "sha512" {
		h = sha512.New()
	}
	if _, err := io.Copy(h, io.NewSectionReader(u.file, 0, u.d.Size)); err != nil {
		return fmt.Errorf("read the stored blob: %w", err)
	}
	if hex.EncodeToString(h.Sum(nil)) != u.digest.Hex() {
		return &hinted{text: "the stored blob is damaged", hint: "pull or build the image again"}
	}
	return nil
}
