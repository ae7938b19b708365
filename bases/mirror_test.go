// SPDX-License-Identifier: Apache-2.0

package bases

import (
	"testing"
	"time"

	"sbx/tests/upstream"
)

// fakeMirror is a web server with an archive of Debian packages of the test's.
type fakeMirror struct{ *upstream.Site }

func newFakeMirror(t *testing.T) *fakeMirror {
	m := &fakeMirror{upstream.NewSite(upstream.NewSigner(1))}
	t.Cleanup(m.Close)
	return m
}

func (m *fakeMirror) publish(suite string, date time.Time, fields string, packages ...upstream.Package) {
	m.Debian("", upstream.Suite{Name: suite, Date: date, Fields: fields}, packages...)
}
