// SPDX-License-Identifier: Apache-2.0

// Package typeurl stands in for a package of the same name: it registers no types.
//
// It is a stand-in, see ADR 0005: it keeps nothing, encodes nothing and decodes nothing.
package typeurl
