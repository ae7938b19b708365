package seccomp
import "testing"
func BenchmarkCompile(b *testing.B){ for b.Loop() { compileDefault(Target{Machine:"amd64",Caps:[]string{"CAP_SYS_CHROOT"}}, false) } }
