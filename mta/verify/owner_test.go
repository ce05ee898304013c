package verify

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"
)

// TestOnlyRoot has paths that others than root could turn into something else.
func TestOnlyRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give files away")
	}
	dir := openDir(t)
	give := func(path string, uid, gid int, mode fs.FileMode) {
		t.Helper()
		if err := errors.Join(os.Lchown(dir+"/"+path, uid, gid), os.Chmod(dir+"/"+path, mode)); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"root/bin", "other/bin", "all", "group", "wheel", "sticky/bin"} {
		mkdir(t, dir+"/"+d, 0o755)
	}
	give("other", 987654, 0, 0o755)
	give("all", 0, 0, 0o757)
	give("group", 0, 987654, 0o775)
	give("wheel", 0, 0, 0o775)
	give("sticky", 0, 0, 0o777|fs.ModeSticky)
	for _, f := range []string{"root/bin/x", "root/open", "root/theirs", "other/bin/x", "all/x", "group/x", "wheel/x", "sticky/bin/x", "sticky/x"} {
		write(t, dir+"/"+f, "", 0o755)
	}
	give("root/open", 0, 0, 0o757)
	give("root/theirs", 987654, 0, 0o755)
	for link, target := range map[string]string{
		"root/in": "bin/x", "root/out": dir + "/other/bin/x", "root/up": "../other/../root/bin/x", "root/down": "../other/bin/../../root/bin/x",
		"root/loop": "loop", "sticky/root": dir + "/root", "sticky/theirs": dir + "/root", "root/dir": "bin",
	} {
		if err := os.Symlink(target, dir+"/"+link); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Lchown(dir+"/sticky/theirs", 987654, 987654); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"root/bin/x": "", "root/in": "", "root/dir/x": "", "wheel/x": "", "sticky/bin/x": "", "sticky/x": "", "sticky/root/bin/x": "", "root": "",
		"root/open":           "everybody may write ",
		"root/theirs":         "theirs belongs to user 987654",
		"other/bin/x":         "other belongs to user 987654",
		"root/out":            "other belongs to user 987654",
		"root/up":             "", // nobody can make other/.. another place
		"root/down":           "other belongs to user 987654",
		"all/x":               "everybody may write ",
		"group/x":             "group 987654 may write ",
		"sticky":              "everybody may write ",
		"sticky/theirs/bin/x": "sticky/theirs belongs to user 987654",
		"root/loop":           syscall.ELOOP.Error(),
		"root/no":             "", "no/no/no": "",
		"sticky/no/no": "everybody may write ",
	} {
		err := OnlyRoot(dir + "/" + path)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}
