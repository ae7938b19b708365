// SPDX-License-Identifier: Apache-2.0

// Package upstream plays the servers of distributions: their files, their indexes and their signatures, made by the test.
//
// The data flow:
//
//	a tarball -> its sum, in an index of the distribution's form -> signed by a Signer -> Site, on a port of 127.0.0.1
//
// # Invariants
//
// It listens on loopback only. The keys are made of a seed and are nobody's.
//
// # Never
//
// It stands in for no code of ours: what it writes is what the distributions' own servers do, in their forms.
package upstream
