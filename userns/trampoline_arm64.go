// SPDX-License-Identifier: Apache-2.0

package userns

const elfMachine = 183 // EM_AARCH64
