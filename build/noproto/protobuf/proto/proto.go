// SPDX-License-Identifier: Apache-2.0

// Package proto stands in for a package of the same name: messages that are never encoded.
package proto

import "google.golang.org/protobuf/reflect/protoreflect"

// Message is whatever generated code calls one.
type Message = protoreflect.ProtoMessage
