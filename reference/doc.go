// SPDX-License-Identifier: Apache-2.0

// Package reference turns what a user types into a qualified image reference and back.
//
//	alpine  --Parse-->  {docker.io, library/alpine, latest}  --String-->    docker.io/library/alpine:latest
//	                                                         --Familiar-->  alpine:latest
//
// The grammar is Docker's, normalisation included. It is written out by hand because
// github.com/distribution/reference compiles its regular expressions at every start of
// the program; the tests hold the two against each other on every input.
//
// Invariants: Parse(r.String()) == r and Parse(r.Familiar()) == r for every r that Parse
// returned; a Digest other than the zero one has a known algorithm and the right number
// of lower case hexadecimal digits, so its parts may become file names.
//
// The package never does I/O and imports nothing of the project.
package reference
