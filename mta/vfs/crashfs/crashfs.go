// Package crashfs is a disk in memory for tests that lose power, or whose process is
// killed. It keeps what a program wrote apart from what is certain to be on the disk:
//
//   - Sync of a file makes its content durable, and not its name.
//   - Sync of a directory makes the names in it durable: those that were made, renamed and
//     removed. The directory's own name is one of its parent's.
//   - Everything else is a change that is not durable. At a power cut each of them
//     survives or vanishes by itself, in whatever order they were made: a removal may
//     survive while the creation before it vanishes, and the last page of a file may be
//     there while those before it read as zeros.
//
// That is less than any file system in use promises (ext4 keeps the order of names,
// and writes a name along with a file that is synced; see package pebble/vfs, whose
// MemFS undoes every removal that was not synced). A program that is right here is right
// on all of them.
//
// A rename within a directory is one change: it happens or not. A rename to another
// directory is two, each made durable by the sync of its own directory (directories stay
// where they were made). Content is lost by pages: a page is as it was after one of the writes to it since the last sync, or
// before all of them.
//
// # Use
//
// A Disk is one of Pebble's file systems; meta1's form of it (package vfs) is FS:
//
//	disk := crashfs.New()
//	fsys := crashfs.FS(disk, nil)
//	... // the program runs on fsys
//	next := disk.Crash(crashfs.Random(rnd, 50)) // power cut: half of what was not synced
//	next := disk.Crash(crashfs.Ordered(rnd))    // the same as a journal keeps it (ext4)
//	next := disk.Crash(crashfs.Nothing)         // just what was synced
//	next := disk.Kill()                         // kill -9: everything, still not synced
//
// The old disk goes on as if nothing had happened, so that goroutines of the dead process
// that still write to it disturb nobody. States goes through all the states that a
// power cut can leave, or a good choice of them. To crash before each call, wrap the disk
// with errorfs.Wrap and call Crash in MaybeError; to let calls fail, return an error.
package crashfs

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// Disk is a disk. It may be used from any goroutine.
type Disk struct {
	mu      sync.Mutex // guards what follows and all nodes
	root    *node
	changes int64 // made so far, which orders them
	locked  map[string]bool
}

// New is an empty disk.
func New() *Disk { return &Disk{root: newDir(), locked: map[string]bool{}} }

// pageSize is the unit in which content reaches the disk.
const pageSize = 4096

// node is a file or a directory.
type node struct {
	isDir   bool
	changed time.Time
	names   map[string]*node // of a directory
	content content          // of a file

	// What is durable, and what has happened since, oldest first.
	durableNames   map[string]*node
	durableContent content
	pending        []change
}

// change is one change to a node that is not durable yet.
type change struct {
	Change
	order int64
	names []naming // of a directory: what is changed at once
	page  int      // of a file: that page
	data  []byte   // is then this
}

// naming gives a name to a node, or removes it if the node is nil.
type naming struct {
	name string
	node *node
}

// content is the content of a file. A page is never changed, save that the newest
// version of it is appended to, which others do not see. One that is missing or short
// ends in zeros.
type content struct {
	pages [][]byte
	size  int64
}

func newDir() *node {
	return &node{isDir: true, names: map[string]*node{}, durableNames: map[string]*node{}, changed: time.Now()}
}

// set puts a page in its place.
func (c *content) set(page int, data []byte) {
	for len(c.pages) <= page {
		c.pages = append(c.pages, nil)
	}
	c.pages[page] = data
	c.size = max(c.size, int64(page)*pageSize+int64(len(data)))
}

// readAt copies the content from off on.
func (c *content) readAt(p []byte, off int64) (n int) {
	for n < len(p) && off < c.size {
		at := int(off % pageSize)
		part := p[n:min(len(p), n+min(pageSize-at, int(c.size-off)))]
		clear(part)
		if i := int(off / pageSize); i < len(c.pages) && at < len(c.pages[i]) {
			copy(part, c.pages[i][at:])
		}
		n += len(part)
		off += int64(len(part))
	}
	return n
}

// clone is a copy that shares the pages. Who appends to a page of the copy copies it.
func (c *content) clone() content {
	pages := make([][]byte, len(c.pages))
	for i, p := range c.pages {
		pages[i] = slices.Clip(p)
	}
	return content{pages: pages, size: c.size}
}

// write writes p at off and notes a change for each page. File is its path.
func (d *Disk) write(n *node, path string, p []byte, off int64) {
	n.changed = time.Now()
	for len(p) > 0 {
		i, at := int(off/pageSize), int(off%pageSize)
		part := p[:min(len(p), pageSize-at)]
		var old []byte
		if i < len(n.content.pages) {
			old = n.content.pages[i]
		}
		data := overlay(old, part, at)
		n.content.set(i, data)
		d.note(n, change{Change: Change{Kind: Write, Path: path, Page: i}, page: i, data: data})
		p, off = p[len(part):], off+int64(len(part))
	}
}

// overlay is the page with part at a place in it. The page itself stays as it is.
func overlay(page, part []byte, at int) []byte {
	if at == len(page) {
		return append(page, part...)
	}
	data := make([]byte, max(len(page), at+len(part)))
	copy(data, page)
	copy(data[at:], part)
	return data
}

// setNames changes names in a directory, all at once.
func (d *Disk) setNames(dir *node, c Change, names ...naming) {
	for _, n := range names {
		n.applyTo(dir.names)
	}
	dir.changed = time.Now()
	d.note(dir, change{Change: c, names: names})
}

func (n naming) applyTo(names map[string]*node) {
	if n.node == nil {
		delete(names, n.name)
	} else {
		names[n.name] = n.node
	}
}

func (d *Disk) note(n *node, c change) {
	d.changes++
	c.order = d.changes
	n.pending = append(n.pending, c)
}

// settle makes a change durable.
func (n *node) settle(c change) {
	if !n.isDir {
		n.durableContent.set(c.page, c.data)
		return
	}
	for _, name := range c.names {
		name.applyTo(n.durableNames)
	}
}

// sync makes everything durable that has happened to a node.
func (n *node) sync() {
	for _, c := range n.pending {
		n.settle(c)
	}
	n.pending = nil
}

// Kill is the disk as a process finds it that was started after this one was killed:
// nothing is lost, locks are free, and what was not synced is still not.
func (d *Disk) Kill() *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.copy(func(n, copied *node, twin func(*node) *node) {
		if !n.isDir {
			copied.content, copied.durableContent = n.content.clone(), n.durableContent.clone()
		}
		for _, c := range n.pending {
			c.data = slices.Clip(c.data)
			for i, name := range c.names {
				if i == 0 {
					c.names = slices.Clone(c.names)
				}
				if name.node != nil {
					c.names[i].node = twin(name.node)
				}
			}
			copied.pending = append(copied.pending, c)
		}
		for name, child := range n.names {
			copied.names[name] = twin(child)
		}
		for name, child := range n.durableNames {
			copied.durableNames[name] = twin(child)
		}
	})
}

// Crash is the disk as it is found after a power cut at this moment. All that is on it
// is durable.
func (d *Disk) Crash(choose Chooser) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.crash(choose)
}

func (d *Disk) crash(choose Chooser) *Disk {
	pending := d.pending()
	changes := make([]Change, len(pending))
	for i, c := range pending {
		changes[i] = c.Change
	}
	kept := map[int64]bool{}
	for i, keep := range choose(changes) {
		kept[pending[i].order] = keep
	}
	return d.copy(func(n, copied *node, twin func(*node) *node) {
		survivor := &node{isDir: n.isDir}
		if n.isDir {
			survivor.durableNames = maps.Clone(n.durableNames)
		} else {
			survivor.durableContent = n.durableContent.clone()
		}
		for _, c := range n.pending {
			if kept[c.order] {
				c.data = slices.Clip(c.data)
				survivor.settle(c)
			}
		}
		for name, child := range survivor.durableNames {
			copied.names[name] = twin(child)
			copied.durableNames[name] = copied.names[name]
		}
		copied.content, copied.durableContent = survivor.durableContent, survivor.durableContent.clone()
	})
}

// copy is a new disk whose nodes are made by fill, each once. Twin is a node's copy.
func (d *Disk) copy(fill func(n, copied *node, twin func(*node) *node)) *Disk {
	next := &Disk{changes: d.changes, locked: map[string]bool{}}
	copies := map[*node]*node{}
	var todo []*node
	twin := func(n *node) *node {
		if copies[n] == nil {
			c := &node{isDir: n.isDir, changed: n.changed}
			if n.isDir {
				c.names, c.durableNames = map[string]*node{}, map[string]*node{}
			}
			copies[n] = c
			todo = append(todo, n)
		}
		return copies[n]
	}
	next.root = twin(d.root)
	for len(todo) > 0 {
		n := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		fill(n, copies[n], twin)
	}
	return next
}

// Pending are the changes that are not durable, in the order in which they were made.
func (d *Disk) Pending() []Change {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []Change
	for _, c := range d.pending() {
		all = append(all, c.Change)
	}
	return all
}

// pending finds the changes of all nodes that may be on the disk after a crash.
func (d *Disk) pending() []change {
	var all []change
	seen := map[*node]bool{}
	var visit func(n *node)
	visit = func(n *node) {
		if n == nil || seen[n] {
			return
		}
		seen[n] = true
		all = append(all, n.pending...)
		for _, child := range n.names {
			visit(child)
		}
		for _, child := range n.durableNames {
			visit(child)
		}
		for _, c := range n.pending {
			for _, name := range c.names {
				visit(name.node)
			}
		}
	}
	visit(d.root)
	slices.SortFunc(all, func(a, b change) int { return int(a.order - b.order) })
	return all
}
