// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"encoding/binary"
	"slices"
	"time"
)

const (
	// maxPieces are datagrams that wait for their fragments, on one loop.
	maxPieces = 32
	// maxFragments is for a datagram of 64 KiB in the smallest packets of IPv4 links.
	maxFragments   = 160
	piecesPatience = int64(5 * time.Second)
)

// piecesKey is what fragments of one datagram have in common.
type piecesKey struct {
	guest, remote [16]byte
	proto         uint16
	id            uint32
}

// partial is a datagram of which fragments are missing: its payload in a block,
// behind room for the headers.
type partial struct {
	key    piecesKey
	buffer *buffer
	spans  [][2]int // what has come, in order
	total  int      // -1 until the last fragment has come
	timer  timer
}

// pieces are the datagrams that a loop puts together.
type pieces struct{ waiting []*partial }

// takeFragment puts a fragment to its others. All are the first loop's: those of
// one datagram may come through different queues.
func (l *loop) takeFragment(p *packet) {
	if first := l.n.loops[0]; first != l {
		l.hand(first, p)
		return
	}
	k := piecesKey{guest: p.key.guest, remote: p.key.remote, proto: p.key.proto, id: p.fragment.id}
	i := slices.IndexFunc(l.pieces.waiting, func(w *partial) bool { return w.key == k })
	var w *partial
	if i >= 0 {
		w = l.pieces.waiting[i]
	} else if w = l.newPartial(k); w == nil {
		l.n.dropped.Add(1)
		return
	}
	switch w.add(p) {
	case piecesWrong:
		l.dropPartial(w)
		l.n.dropped.Add(1)
	case piecesComplete:
		l.complete(w, p)
	}
}

func (l *loop) newPartial(k piecesKey) *partial {
	if len(l.pieces.waiting) >= maxPieces {
		l.dropPartial(l.pieces.waiting[0])
		l.n.dropped.Add(1)
	}
	if l.arena.scarce(4) {
		return nil
	}
	w := &partial{key: k, buffer: l.arena.block(), total: -1}
	w.timer.expire = func(l *loop) { l.dropPartial(w) }
	l.timers.set(&w.timer, l.now+piecesPatience)
	l.pieces.waiting = append(l.pieces.waiting, w)
	return w
}

func (l *loop) dropPartial(w *partial) {
	l.timers.remove(&w.timer)
	l.arena.free(w.buffer)
	l.pieces.waiting = slices.DeleteFunc(l.pieces.waiting, func(o *partial) bool { return o == w })
}

type piecesState int

const (
	piecesMissing piecesState = iota
	piecesWrong
	piecesComplete
)

// add takes one fragment. Fragments that overlap make the whole datagram wrong
// (RFC 5722), but for exact repetitions (RFC 8200 §4.5).
func (w *partial) add(p *packet) piecesState {
	from, to := p.fragment.offset, p.fragment.offset+len(p.l4)
	if to > 0xffff || len(p.l4) == 0 || p.fragment.more && len(p.l4)%8 != 0 || w.total >= 0 && to > w.total {
		return piecesWrong
	}
	if !p.fragment.more {
		if w.total >= 0 && w.total != to || len(w.spans) > 0 && w.spans[len(w.spans)-1][1] > to {
			return piecesWrong
		}
		w.total = to
	}
	i, found := slices.BinarySearchFunc(w.spans, from, func(s [2]int, from int) int { return s[0] - from })
	if found && w.spans[i][1] == to {
		return piecesMissing
	}
	if found || i > 0 && w.spans[i-1][1] > from || i < len(w.spans) && w.spans[i][0] < to || len(w.spans) >= maxFragments {
		return piecesWrong
	}
	w.spans = slices.Insert(w.spans, i, [2]int{from, to})
	copy(w.buffer.data[headroom+from:], p.l4)
	if w.total < 0 {
		return piecesMissing
	}
	end := 0
	for _, s := range w.spans {
		if s[0] != end {
			return piecesMissing
		}
		end = s[1]
	}
	if end != w.total {
		return piecesMissing
	}
	return piecesComplete
}

// complete hands the datagram on as if it had come whole.
func (l *loop) complete(w *partial, last *packet) {
	b := w.buffer
	whole := packet{
		key: key{guest: w.key.guest, remote: w.key.remote, proto: w.key.proto},
		v6:  last.v6, l4: b.data[headroom : headroom+w.total : headroom+w.total],
	}
	// For errors, which quote it: an IP header as the container would have sent it.
	back := key{guest: whole.key.remote, remote: whole.key.guest, proto: whole.key.proto}
	ip := headroom - ipSize(&back)
	ipHeader(b.data[ip:], &back, w.total, false)
	whole.ip = b.data[ip : headroom+w.total]
	l.dispatch(&whole)
	l.dropPartial(w)
}

// fragments sends b[at:at+n], what follows the IP header of a packet, in fragments.
// The headers of each overwrite what was sent before.
func (l *loop) fragments(k *key, b []byte, at, n int) {
	l.lastID++
	id, v6 := l.lastID, k.v6()
	header := ipSize(k)
	if v6 {
		header += 8
	}
	most := (l.n.config.MTU - header) &^ 7
	for done := 0; done < n; done += most {
		size, more := n-done, uint16(0)
		if size > most {
			size, more = most, 1
		}
		start := at + done - header
		ipHeader(b[start:], k, header-ipSize(k)+size, false)
		h := b[start:]
		if v6 {
			h[6] = 44
			e := h[ip6Size:]
			e[0], e[1] = byte(k.proto), 0
			binary.BigEndian.PutUint16(e[2:], uint16(done)|more)
			binary.BigEndian.PutUint32(e[4:], id)
		} else {
			binary.BigEndian.PutUint16(h[4:], uint16(id))
			binary.BigEndian.PutUint16(h[6:], uint16(done/8)|more<<13)
			h[10], h[11] = 0, 0
			binary.BigEndian.PutUint16(h[10:], ^fold(sum(0, h[:ip4Size])))
		}
		start -= VnetHeaderSize
		vnet(b[start:], gsoNone, 0, 0, 0, 0)
		l.queue.write(b[:at+done+size], start)
	}
}
