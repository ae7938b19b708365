// SPDX-License-Identifier: Apache-2.0

package protoreflect

// Message is the reflection of a message, of which there is none.
type Message interface{ none() }

// ProtoMessage is whatever generated code calls a message.
type ProtoMessage interface{ ProtoReflect() Message }

// FileDescriptor is never there.
type FileDescriptor interface{ none() }
