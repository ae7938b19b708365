// SPDX-License-Identifier: Apache-2.0

// Package protoimpl stands in for a package of the same name, which generated code is written against: it registers nothing.
//
// It is a stand-in, see ADR 0005: it keeps nothing, encodes nothing and decodes nothing.
package protoimpl
