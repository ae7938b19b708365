package seccomp
import "testing"
func BenchmarkDefault(b *testing.B){ for b.Loop() { Default([]string{"CAP_SYS_CHROOT"}) } }
func BenchmarkCompile(b *testing.B){ for b.Loop() { compileDefault(Target{Machine:"amd64",Caps:[]string{"CAP_SYS_CHROOT"}}, false) } }
