// SPDX-License-Identifier: Apache-2.0

// Package seccomp builds seccomp filters.
package seccomp
