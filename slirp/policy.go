// SPDX-License-Identifier: Apache-2.0

package slirp

// Refuse is the policy where none is given: what no router would forward, and what
// only this host may reach, stays shut.
var Refuse Policy = PolicyFunc(func(f Flow) Verdict {
	a := f.Dst.Addr()
	if !a.IsGlobalUnicast() || a.Is4In6() || a.Is4() && a.As4()[0] == 0 {
		return Verdict{Reason: "a special address"}
	}
	return Verdict{Allow: true}
})
