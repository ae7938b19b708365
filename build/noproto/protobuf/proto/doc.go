// SPDX-License-Identifier: Apache-2.0

// Package proto stands in for a package of the same name: messages that are never encoded.
//
// It is a stand-in, see ADR 0005: it keeps nothing, encodes nothing and decodes nothing.
package proto
