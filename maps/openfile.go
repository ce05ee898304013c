package maps

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// OpenFile opens the file of a map for reading. A pipe or a device is refused, since to open it or to read it to its end could
// take for ever, and a reload, which reads all maps, with it. The null device is as good as an empty file.
func OpenFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	const endless = fs.ModeNamedPipe | fs.ModeDevice | fs.ModeSocket | fs.ModeIrregular
	if err == nil && info.Mode()&endless != 0 && path != os.DevNull {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
