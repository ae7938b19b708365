// SPDX-License-Identifier: Apache-2.0

package proto

import "google.golang.org/protobuf/reflect/protoreflect"

// Message is whatever generated code calls one.
type Message = protoreflect.ProtoMessage
