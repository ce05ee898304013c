package maps

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	pvfs "github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"meta1/mta/vfs/crashfs"
)

// diskFolders are the folders of a disk that is looked at before each of their calls.
type diskFolders struct {
	pvfs.FS
	temps int
}

func onDisk(disk *crashfs.Disk, look func()) *diskFolders {
	return &diskFolders{FS: errorfs.Wrap(disk, errorfs.InjectorFunc(func(errorfs.Op) error {
		look()
		return nil
	}))}
}

func (d *diskFolders) Stat(name string) (os.FileInfo, error) { return d.FS.Stat(name) }

func (d *diskFolders) CreateTemp(dir, pattern string) (newFile, error) {
	d.temps++
	name := filepath.Join(dir, strings.Replace(pattern, "*", fmt.Sprint(d.temps), 1))
	f, err := d.Create(name, pvfs.WriteCategoryUnspecified)
	return &diskFile{f, name}, err
}

func (d *diskFolders) SyncDir(dir string) error {
	f, err := d.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

type diskFile struct {
	pvfs.File
	name string
}

func (f *diskFile) Name() string                { return f.name }
func (*diskFile) Chmod(os.FileMode) error       { return nil }
func (f *diskFile) Write(b []byte) (int, error) { return f.File.Write(append([]byte(nil), b...)) }

// TestCreateCrashes: whenever the power goes while a map is made anew, there is the old
// one or the new one, whole; and the new one as soon as Create has ended.
func TestCreateCrashes(t *testing.T) {
	source := func(value string) string {
		var b strings.Builder
		for i := range 300 {
			fmt.Fprintf(&b, "key%d\t%s%d\n", i, value, i)
		}
		return b.String()
	}
	disk, rnd := crashfs.New(), rand.New(rand.NewPCG(1, 2))
	if err := disk.MkdirAll("etc", 0o755); err != nil {
		t.Fatal(err)
	}
	var crashed []*crashfs.Disk
	folders := onDisk(disk, func() {
		for _, d := range disk.States(40, rnd) {
			crashed = append(crashed, d)
		}
		crashed = append(crashed, disk.Kill())
	})
	create := func(value string) {
		t.Helper()
		if _, err := Create("etc/map", strings.NewReader(source(value)), CreateOptions{folders: folders}); err != nil {
			t.Fatal(err)
		}
	}
	create("old")
	if err := folders.SyncDir("."); err != nil { // the folder is older than the map
		t.Fatal(err)
	}
	old := contentOf(t, disk)
	crashed = nil
	create("new")
	fresh, states := contentOf(t, disk), map[string]int{}
	for _, d := range crashed {
		states[contentOf(t, d)]++
	}
	if states[old] < 20 || states[fresh] < 2 || len(states) != 2 {
		t.Errorf("%d times the old one, %d times the new one, and %d others", states[old], states[fresh], len(states)-2)
	}
	for name, d := range disk.States(100, rnd) {
		if contentOf(t, d) != fresh {
			t.Errorf("after the end, %s: not the new one", name)
		}
	}
}

func contentOf(t *testing.T, disk *crashfs.Disk) string {
	t.Helper()
	f, err := disk.Open("etc/map")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
