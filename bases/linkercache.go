// SPDX-License-Identifier: Apache-2.0

package bases

import (
	"bytes"
	"encoding/binary"
	"errors"
)

// linkerCache is what ldconfig(8) writes to /etc/ld.so.cache: where each library is.
type linkerCache map[string][]string

func (c linkerCache) find(name string) []string { return c[name] }

// The forms of the file. The old one may stand before the new, for linkers of
// before glibc 2.2 (glibc, sysdeps/generic/dl-cache.h).
var (
	oldCacheMagic = []byte("ld.so-1.7.0\x00")
	newCacheMagic = []byte("glibc-ld.so.cache1.1")
)

const (
	oldCacheHeader = 16 // magic, padding, number of entries
	oldCacheEntry  = 12
	newCacheHeader = 48 // magic, number, length of strings, flags, extension, unused
	newCacheEntry  = 24 // flags, key, value, OS version, hardware capabilities
	maxCacheEntry  = 1 << 20
)

var errLinkerCache = errors.New("read /etc/ld.so.cache: strange form")

// parseLinkerCache reads the cache in glibc's new form, wherever it stands in
// the file. The entries of one library keep their order, in which the linker
// prefers them. It reads machines of little-endian order, as all of ours are.
func parseLinkerCache(data []byte) (linkerCache, error) {
	if bytes.HasPrefix(data, oldCacheMagic) {
		if len(data) < oldCacheHeader {
			return nil, errLinkerCache
		}
		n := binary.LittleEndian.Uint32(data[12:])
		end := oldCacheHeader + uint64(n)*oldCacheEntry
		end = (end + 7) &^ 7 // aligned as the structures of the new form are
		if n > maxCacheEntry || end > uint64(len(data)) {
			return nil, errLinkerCache
		}
		data = data[end:]
	}
	if !bytes.HasPrefix(data, newCacheMagic) || len(data) < newCacheHeader {
		return nil, errLinkerCache
	}
	n := binary.LittleEndian.Uint32(data[20:])
	if n > maxCacheEntry || newCacheHeader+uint64(n)*newCacheEntry > uint64(len(data)) {
		return nil, errLinkerCache
	}
	cache := linkerCache{}
	for i := range int(n) {
		entry := data[newCacheHeader+i*newCacheEntry:]
		key, ok := cacheString(data, binary.LittleEndian.Uint32(entry[4:]))
		value, ok2 := cacheString(data, binary.LittleEndian.Uint32(entry[8:]))
		if !ok || !ok2 {
			return nil, errLinkerCache
		}
		cache[key] = append(cache[key], value)
	}
	return cache, nil
}

// cacheString is the string at an offset from the beginning of the form.
func cacheString(data []byte, at uint32) (string, bool) {
	if uint64(at) >= uint64(len(data)) {
		return "", false
	}
	s, _, ok := bytes.Cut(data[at:], []byte{0})
	return string(s), ok && len(s) < maxPath
}
