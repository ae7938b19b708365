// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// errTooLarge is the cause when a file is larger than what it is read as may be.
var errTooLarge = errors.New("larger than allowed")

// readSmall reads a file of at most limit bytes. It is os.ReadFile with a third of the
// system calls: the files that every run reads are read here.
func readSmall(path string, limit int) ([]byte, error) {
	fd, err := openRetry(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Size > int64(limit) {
		return nil, &fs.PathError{Op: "read", Path: path, Err: errTooLarge}
	}
	// Files of proc have no size, and one more byte shows that the end has been reached.
	buf := make([]byte, max(int(st.Size), 512)+1)
	for n := 0; ; {
		if n == len(buf) {
			if n > limit {
				return nil, &fs.PathError{Op: "read", Path: path, Err: errTooLarge}
			}
			buf = append(buf, make([]byte, len(buf))...)
		}
		m, err := unix.Read(fd, buf[n:])
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return nil, &fs.PathError{Op: "read", Path: path, Err: err}
		case m == 0:
			return buf[:n], nil
		}
		n += max(m, 0)
		if st.Size > 0 && n == int(st.Size) {
			// Nothing here is changed in place: what was its size is its end.
			return buf[:n], nil
		}
	}
}

func openRetry(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, flags, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// writeSynced makes or overwrites the file at path; its content is durable afterwards.
func writeSynced(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

// syncDir makes the names in a directory durable.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, unix.EINVAL) {
		err = nil // some network filesystems have no such call, and no delayed names
	}
	return errors.Join(err, d.Close())
}

// openLocked opens the file at path and waits until this process has the only flock on
// it. Whoever had it before may have renamed or removed the file, so the path is looked
// at again: the result is what the path names now.
func openLocked(ctx context.Context, path string, flags int) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, flags|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		if err := flock(ctx, f); err != nil {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if isAt(f, path) {
			return f, nil
		}
		f.Close()
	}
}

// tryLocked is openLocked for those who do not wait: it returns nil when somebody else
// holds the file, or when it has gone.
func tryLocked(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, flags|unix.O_NOFOLLOW, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil && isAt(f, path) {
		return f, nil
	}
	f.Close()
	if err == nil || errors.Is(err, unix.EWOULDBLOCK) {
		return nil, nil
	}
	return nil, fmt.Errorf("lock %s: %w", path, err)
}

// createLocked makes a file prefix+RANDOM that is locked from before anybody else could
// take it for a dead process's.
func createLocked(prefix string) (*os.File, error) {
	for {
		path := prefix + randomName()
		f, err := tryLocked(path, os.O_RDWR|os.O_CREATE|os.O_EXCL)
		if f != nil || err != nil {
			return f, err
		}
	}
}

// flock waits for an exclusive lock on f. It closes f when it fails: a thread may still
// be waiting for the lock then, and no call takes it back.
func flock(ctx context.Context, f *os.File) error { return LockFile(ctx, f, unix.LOCK_EX) }

// LockFile waits for a lock on f as flock(2) knows them: LOCK_EX or LOCK_SH, and with
// LOCK_NB it does not wait. The lock ends with f, which is closed when there is an error.
func LockFile(ctx context.Context, f *os.File, how int) error {
	fd := int(f.Fd())
	err := unix.Flock(fd, how|unix.LOCK_NB)
	if err == nil {
		return nil
	}
	if !errors.Is(err, unix.EWOULDBLOCK) {
		f.Close()
		return err
	}
	got := make(chan error, 1)
	go func() {
		for {
			err := unix.Flock(fd, how)
			if !errors.Is(err, unix.EINTR) {
				got <- err
				return
			}
		}
	}()
	select {
	case err := <-got:
		if err != nil {
			f.Close()
		}
		return err
	case <-ctx.Done():
		go func() {
			<-got //nolint:errcheck // the lock goes with the file
			f.Close()
		}()
		return ctx.Err()
	}
}

// isAt reports whether path names the open file f.
func isAt(f *os.File, path string) bool {
	var there, here unix.Stat_t
	if unix.Lstat(path, &there) != nil || unix.Fstat(int(f.Fd()), &here) != nil {
		return false
	}
	return there.Dev == here.Dev && there.Ino == here.Ino
}

// lock takes the lock of the index. What it guards is short: nobody waits for the network
// or for another lock while holding it.
func (s *Store) lock(ctx context.Context) (unlock func(), err error) {
	f, err := openLocked(ctx, s.path(lockFile), os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, err
	}
	return func() { f.Close() }, nil
}

func randomName() string {
	var b [8]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
