// SPDX-License-Identifier: Apache-2.0

package protoimpl

import (
	"unsafe"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// The versions that generated code asks for.
const (
	MinVersion = 20
	MaxVersion = 20
)

type (
	// EnforceVersion is a number that must not be negative.
	EnforceVersion uint
	// Pointer points at a message.
	Pointer = unsafe.Pointer
	// UnknownFields are none.
	UnknownFields = []byte
	// SizeCache caches nothing.
	SizeCache = int32
	// MessageState is that of a message: none.
	MessageState struct{ protoreflect.Message }
	// MessageInfo is what is known of a kind of message: nothing.
	MessageInfo struct{}
)

// StoreMessageInfo keeps nothing.
func (*MessageState) StoreMessageInfo(*MessageInfo) {}

// LoadMessageInfo has nothing.
func (*MessageState) LoadMessageInfo() *MessageInfo { return nil }

// MessageOf reflects nothing.
func (*MessageInfo) MessageOf(any) protoreflect.Message { return nil }

// X has the calls that generated code makes.
var X calls

type calls struct{}

func (calls) MessageStateOf(Pointer) *MessageState { return &MessageState{} }

func (calls) MessageStringOf(protoreflect.ProtoMessage) string { return "" }

func (calls) CompressGZIP([]byte) []byte { return nil }

// DescBuilder describes a file that is not registered.
type DescBuilder struct {
	GoPackagePath                                     string
	RawDescriptor                                     []byte
	NumEnums, NumMessages, NumExtensions, NumServices int32
}

// TypeBuilder would register the messages of a file.
type TypeBuilder struct {
	File              DescBuilder
	GoTypes           []any
	DependencyIndexes []int32
	MessageInfos      []MessageInfo
}

// Built is a file that was not registered.
type Built struct{ File protoreflect.FileDescriptor }

// Build registers nothing.
func (TypeBuilder) Build() Built { return Built{} }
