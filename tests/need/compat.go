// SPDX-License-Identifier: Apache-2.0

package need

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
)

// probeCompat runs a program that asks for its pid by the other table.
func probeCompat() error {
	dir, err := os.MkdirTemp("", "need-compat-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	const getpid = 20
	name := filepath.Join(dir, "program")
	if err := os.WriteFile(name, CompatProgram("", [][4]uint32{{getpid}}), 0o700); err != nil {
		return err
	}
	return run(name)
}

// CompatProgram is a static program for AMD64 that makes system calls by the
// table of 32-bit programs (int 0x80): each of calls is a number and three
// arguments, of which a first one of 0 stands for the path. Its status is 0 if
// none of them failed.
func CompatProgram(path string, calls [][4]uint32) []byte {
	const (
		base    = 0x400000
		headers = 64 + 56
		perCall = 4*5 + 2 + 3 + 2 + 1
		last    = 2 + 5 + 2
	)
	at := uint32(base + headers + 2 + perCall*len(calls) + last)
	var code bytes.Buffer
	load := func(register byte, v uint32) {
		code.WriteByte(0xb8 + register)
		_ = binary.Write(&code, binary.LittleEndian, v)
	}
	const eax, ecx, edx, ebx = 0, 1, 2, 3
	code.Write([]byte{0x31, 0xf6}) // xor esi, esi
	for _, c := range calls {
		if c[1] == 0 {
			c[1] = at
		}
		load(eax, c[0])
		load(ebx, c[1])
		load(ecx, c[2])
		load(edx, c[3])
		code.Write([]byte{0xcd, 0x80})       // int 0x80
		code.Write([]byte{0xc1, 0xe8, 0x18}) // shr eax, 24: all ones of an error, none of a descriptor
		code.Write([]byte{0x09, 0xc6})       // or esi, eax
		code.WriteByte(0x90)
	}
	code.Write([]byte{0x89, 0xf3}) // mov ebx, esi
	load(eax, 1)                   // exit
	code.Write([]byte{0xcd, 0x80})
	code.WriteString(path + "\x00")

	var out bytes.Buffer
	size := uint64(headers + code.Len())
	_ = binary.Write(&out, binary.LittleEndian, elf.Header64{
		Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT),
		Entry: base + headers, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
	})
	_ = binary.Write(&out, binary.LittleEndian, elf.Prog64{
		Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Vaddr: base, Paddr: base, Filesz: size, Memsz: size, Align: 0x1000,
	})
	out.Write(code.Bytes())
	return out.Bytes()
}
