// SPDX-License-Identifier: Apache-2.0

// Package need says what a test needs of the machine it runs on.
//
// The data flow:
//
//	need.Need(t, need.Overlay) -> its probe, once -> go on
//	                                              -> skip, with the word and the reason
//	                                              -> fail, where SBX_TEST_REQUIRE lists the word
//
// # Invariants
//
// A word has one probe, which tries the thing itself and asks neither sbx nor a
// sysctl; its error is the reason that is printed. Each skip is also written to
// the file that SBX_TEST_SKIPPED names, because go test is silent about skips.
//
// # Never
//
// It is imported by tests only.
package need
