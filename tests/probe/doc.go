// SPDX-License-Identifier: Apache-2.0

// Command probe tells what a program in a container sees and may do.
//
// It is the only file of the images that tests make. The data flow:
//
//	sbx run IMG probe VERB ARGS -> verbs[VERB] -> lines on standard output
//	sbx run IMG cat              (a link to probe) -> verbs["cat"]
//
// # Invariants
//
// It is static, starts nothing but itself, and writes one fact a line, so that a
// script's regular expression can match it.
package main
