// SPDX-License-Identifier: Apache-2.0

package userns

const elfMachine = 62 // EM_X86_64
