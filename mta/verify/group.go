package verify

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// shared says who else is in the group of a file, or "" if it is ours alone as far as this
// host's files of accounts tell. Root's own group is as good as root: images for OpenShift
// give it everything that an arbitrary user number is to write.
func (c *checker) shared(info fs.FileInfo) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "whose members are not known"
	}
	gid := int(st.Gid)
	switch {
	case c.who.UID != 0 && !slices.Contains(c.who.Groups, gid):
		return fmt.Sprintf("group %d, which is not one of user %s", gid, c.who.Name)
	case gid == 0:
		return ""
	}
	if others := c.members(gid); len(others) > 0 {
		return fmt.Sprintf("group %d, shared with %s", gid, strings.Join(others, ", "))
	}
	return ""
}

// members are the accounts besides ours and root that are in a group, as /etc/group and
// /etc/passwd say. A container often has neither.
func (c *checker) members(gid int) (others []string) {
	number := map[string]int{} // of users
	eachLine(filepath.Join(c.etc, "passwd"), 4, func(f []string) {
		uid, err := strconv.Atoi(f[2])
		if err != nil {
			return
		}
		number[f[0]] = uid
		if f[3] == strconv.Itoa(gid) && uid != c.who.UID && uid != 0 {
			others = append(others, f[0])
		}
	})
	eachLine(filepath.Join(c.etc, "group"), 4, func(f []string) {
		if f[2] != strconv.Itoa(gid) {
			return
		}
		for name := range strings.SplitSeq(f[3], ",") {
			uid, known := number[name]
			if name != "" && name != c.who.Name && (!known || uid != c.who.UID && uid != 0) && !slices.Contains(others, name) {
				others = append(others, name)
			}
		}
	})
	return others
}

// eachLine calls f for the lines of a file of accounts that have so many fields.
func eachLine(file string, fields int, f func(fields []string)) {
	r, err := os.Open(file)
	if err != nil {
		return
	}
	defer r.Close()
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20) // a group may have many members
	for lines.Scan() {
		if list := strings.Split(lines.Text(), ":"); len(list) >= fields {
			f(list)
		}
	}
}
