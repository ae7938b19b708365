// SPDX-License-Identifier: Apache-2.0

// Package protoreflect stands in for a package of the same name: nothing is reflected.
//
// It is a stand-in, see ADR 0005: it keeps nothing, encodes nothing and decodes nothing.
package protoreflect
