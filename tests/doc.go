// SPDX-License-Identifier: Apache-2.0

// Package tests holds what needs the whole binary.
//
// The data flow:
//
//	TestMain builds sbx and the probe program, once      (main_test.go)
//	script/*.txtar -> testscript -> sbx, as a user types  (script_test.go)
//	mkimage, mktar: images out of the probe               (image_test.go)
//	registry, distribution: registries on loopback        (registry_test.go)
//	expect: a program in a real terminal                  (expect_test.go)
//	leaks: what is left when all is done                  (leaks_test.go)
//	kill -9 at random moments                             (killed_test.go)
//	the tree itself: imports, size, style                 (imports_test.go, size_test.go, style_test.go)
//	what a rung records of real images                    (artifacts_test.go)
//	what it remembers of owners that change, owners/*.sh  (owners_test.go)
//
// # Invariants
//
// Every script runs on each rung that its user can climb. A test that cannot run
// on a machine says so through package need, with one of its words; there is no
// other skip. Nothing is asserted about speed: that is bench's.
//
// # Never
//
// It opens no connection but to 127.0.0.1, needs no root, and leaves nothing.
package tests
