// SPDX-License-Identifier: Apache-2.0

// Package protohelpers stands in for a package of the same name: it encodes and decodes nothing.
//
// It is a stand-in, see ADR 0005: it keeps nothing, encodes nothing and decodes nothing.
package protohelpers
