// SPDX-License-Identifier: Apache-2.0

// Package distribution starts the reference registry, docker-registry, for scripts and measurements.
//
// The data flow:
//
//	configuration, users, a certificate -> a folder of its own -> the program, on a port of 127.0.0.1
//
// # Invariants
//
// It listens on loopback only, writes below its folder only, and ends when it is stopped.
//
// # Never
//
// It is no registry of ours: what it answers is the oracle.
package distribution
