package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"meta1/mta/cli"
)

// docPages are the pages for people.
func docPages(t *testing.T) []string {
	t.Helper()
	pages, err := filepath.Glob("../docs/*.md")
	if err != nil || len(pages) < 20 {
		t.Fatal(pages, err)
	}
	return append(pages, "../README.md", "../examples/README.md")
}

// shellBlock is a block of commands of a page that is run: one that begins with ```sh.
type shellBlock struct {
	page   string
	line   int
	text   string
	exit   string // the status with which it must end
	notRun string // why it is not run
}

var docMark = regexp.MustCompile(`^<!-- (not run|exits with): (.+) -->$`)

// shellBlocks are those of a page, in their order.
func shellBlocks(t *testing.T, page string) (blocks []shellBlock) {
	t.Helper()
	var b *shellBlock
	mark := []string{"", "", ""}
	for i, line := range strings.Split(readFile(t, page), "\n") {
		switch trimmed := strings.TrimSpace(line); {
		case b != nil && trimmed == "```":
			blocks, b = append(blocks, *b), nil
		case b != nil:
			b.text += line + "\n"
		case trimmed == "```sh":
			b = &shellBlock{page: page, line: i + 1, exit: "0"}
			switch mark[1] {
			case "not run":
				b.notRun = mark[2]
			case "exits with":
				b.exit = mark[2]
			}
		}
		if m := docMark.FindStringSubmatch(line); m != nil {
			mark = m
		} else if line != "" {
			mark = []string{"", "", ""}
		}
	}
	return blocks
}

// docHost prepares a host of its own, in namespaces in which all that is written goes to the scratch directory $1:
// meta1 at work as after docs/install.md, with mail that waits, mail that is held, a log, and a mail server for example.com. Then
// each file of $2 is run as somebody would type it, and its status compared with that which its second line names.
const docHost = `set -eu
ip link set lo up
mount -t tmpfs tmpfs "$1"
for d in etc usr var root; do
	mkdir -p "$1/$d/upper" "$1/$d/work"
	mount -t overlay -o "lowerdir=/$d,upperdir=$1/$d/upper,workdir=$1/$d/work" overlay "/$d"
done
mkdir "$1/work"
export PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
unset META1_CONF
rm -rf /etc/meta1 /var/spool/meta1
install -m 755 "$3" /usr/local/sbin/meta1
mkdir -p /usr/local/share/doc/meta1 && cp -r "$4/examples" "$4/contrib" "$4/man" "$3" /usr/local/share/doc/meta1
cp -r "$4/e2e/testdata/dochost" /etc/meta1
cat >/usr/local/sbin/systemctl <<'S'
#!/bin/sh
# There is no systemd in a test: what it would do with meta1.
case "$1" in
start | enable) setsid meta1 serve </dev/null >/dev/null 2>&1 & ;;
stop) exec meta1 ctl stop ;;
daemon-reload) exit 0 ;;
reload) exec meta1 ctl reload ;;
esac
for i in $(seq 1000); do meta1 healthcheck >/dev/null 2>&1 && exit 0; sleep 0.1; done
exit 1
S
chmod 755 /usr/local/sbin/systemctl
meta1 setup
mkdir -p /etc/postfix # what docs/from-postfix.md reads
printf '%s\n' 'myhostname = mx.example.org' 'mydestination = example.org' 'relayhost = [smarthost.example]:587' 'canonical_maps = hash:/etc/postfix/canonical' >/etc/postfix/main.cf
printf 'smtp inet n - y - - smtpd\n' >/etc/postfix/master.cf
setsid meta1 sink --listen 127.0.0.1:2526 >/dev/null 2>&1 </dev/null &
systemctl start meta1
for to in joe@example.com ann@down.example bob@down.example eve@held.example; do
	printf 'Subject: hello\n\nIt works.\n' | meta1 sendmail -i -f "news@example.org" "$to"
done
meta1 queue hold --domain held.example >/dev/null
cp -r /usr/local/share/doc/meta1/. "$1/work"
cd "$1/work"
bad=0
for f in "$2"/*.sh; do
	meta1 ctl status >/dev/null 2>&1 || systemctl start meta1
	want=$(sed -n '2s/# exits with //p' "$f")
	if bash -e "$f" >out 2>&1 </dev/null; then got=0; else got=$?; fi
	echo "== $(sed -n '1s/# //p' "$f") $got"
	[ "$got" = "$want" ] || { bad=1; echo "-- status $got, want $want:"; sed 1,2d "$f"; echo "-- says:"; cat out; }
done
exit $bad
`

// TestDocCommandsRun runs every block of commands of the documentation that is marked as such, one after the other,
// as they stand, on a host of its own with a meta1 at work.
func TestDocCommandsRun(t *testing.T) {
	t.Parallel()
	needRoot(t, "it mounts file systems and starts meta1 as its account")
	dir := testDir(t)
	blocks, n := filepath.Join(dir, "blocks"), 0
	for _, d := range []string{blocks, filepath.Join(dir, "scratch")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, page := range docPages(t) {
		for _, b := range shellBlocks(t, page) {
			if b.notRun == "" {
				n++
				writeFile(t, fmt.Sprintf("%s/%03d.sh", blocks, n), fmt.Sprintf("# %s:%d\n# exits with %s\n%s", b.page, b.line, b.exit, b.text))
			}
		}
	}
	if n < 20 {
		t.Errorf("only %d blocks are run", n)
	}
	root := must2(filepath.Abs(".."))
	cmd := exec.Command("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "bash", "-c", docHost, "bash", filepath.Join(dir, "scratch"), blocks, meta1(t), root)
	if out, err := output(cmd); err != nil || strings.Count(out, "\n== ") < n-1 {
		t.Fatalf("%v\n%s", err, out)
	}
}

// docNotRun are the commands that begin the other blocks with commands of meta1, and why nobody runs these as they stand. Their
// words are looked at by TestDocCommandsParse.
var docNotRun = map[string]string{
	"docs/explain.md: meta1 explain --client 192.0.2.7 --helo mail.example.net --from a@example.net --to joe@example.com":           "with its output, that of another host: TestExplain",
	"docs/explain.md: meta1 diff /etc/meta1/meta1.conf new.conf":                                                                    "with its output, that of another host: TestDiff",
	"docs/explain.md: meta1 explain \"550 5.7.1 Relaying denied\"":                                                                  "with its output, that of another host: TestExplain",
	"docs/explain.md: meta1 explain S00000000407CE49200":                                                                            "the id is that of another host",
	"docs/explain.md: meta1 log S00000000407CE49200":                                                                                "the id is that of another host, and --follow has no end",
	"docs/mailfromd.md: meta1 pmult -f /etc/meta1/pmult.conf --check":                                                               "it needs mailfromd, and stays in the foreground: TestPmultMailfromd",
	"docs/recovery.md: meta1 serve                      # refuses with exit status 74 and says: run meta1 fsck; or it goes on, and": "it needs damage: TestFsck",
	"README.md: printf 'Subject: hello\\n\\nIt works.\\n' | ./meta1 sendmail user@localhost":                                        "it is for a checkout, not for a host: TestQuickstart",
	"docs/recovery.md: mv /var/spool/meta1/lost+found/20261120T151200Z/S00000000000006B100 /var/spool/meta1/1/":                     "it needs damage: TestFsck",
	"docs/reload.md: $ meta1 ctl reload":                                                                                            "with its output, for a change that was made before: TestReload",
}

// docPlain are the first commands of those blocks of a page that are not run, fenced or indented, which have a command of meta1.
func docPlain(t *testing.T, page string) (all []string) {
	t.Helper()
	kind, first, found := "", "", false // of the block: how it begins, or "" outside of any
	end := func() {
		if found {
			all = append(all, strings.TrimPrefix(page, "../")+": "+first)
		}
		kind, first, found = "", "", false
	}
	for _, line := range append(strings.Split(readFile(t, page), "\n"), "") {
		trimmed := strings.TrimSpace(line)
		indented := kind == "indented"
		switch {
		case strings.HasPrefix(trimmed, "```") && (kind == "" || indented):
			end()
			kind = trimmed
			continue
		case trimmed == "```":
			end()
			continue
		case kind == "" && strings.HasPrefix(line, "    "):
			kind, indented = "indented", true
		case indented && !strings.HasPrefix(line, "    "):
			end()
			continue
		}
		if kind != "```" && !indented {
			continue
		}
		if first == "" {
			first = trimmed
		}
		found = found || len(docCommands(line)) > 0 && docLine.MatchString(line)
	}
	end()
	return all
}

// TestDocCommandsClassed: each block with a command of meta1 is run (```sh), or this file has the reason why not.
func TestDocCommandsClassed(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, page := range docPages(t) {
		for _, block := range docPlain(t, page) {
			seen[block] = true
			if docNotRun[block] == "" {
				t.Errorf("%s: begin it with ```sh, so that it is run, or say in docNotRun why it is not", block)
			}
		}
	}
	for block := range docNotRun {
		if !seen[block] {
			t.Errorf("docNotRun has %s, which is in no page", block)
		}
	}
}

// TestDocCommandsParse: each command line of meta1 in the documentation, in blocks and in the text, names a command
// that there is with flags that it has. Pages that are written for these tests have no other blocks of commands.
func TestDocCommandsParse(t *testing.T) {
	t.Parallel()
	n := 0
	for _, page := range docPages(t) {
		for i, line := range strings.Split(readFile(t, page), "\n") {
			for _, words := range docCommands(line) {
				n++
				if err := parses(words); err != nil {
					t.Errorf("%s:%d: %q: %v", page, i+1, words, err)
				}
			}
		}
	}
	if n < 200 {
		t.Errorf("only %d commands were found", n)
	}
	for _, bad := range []string{"`meta1 ctl status --colour`", "    meta1 queue explode", "`meta1 nothing`", "meta1 mailq -x"} {
		for _, words := range docCommands(bad) {
			if parses(words) == nil {
				t.Errorf("%s parses", bad)
			}
		}
	}
}

var (
	// docSpan is code in the text, and docLine a line of a block that begins with meta1, or with what runs it.
	docSpan = regexp.MustCompile("`(?:\\./|/)?meta1 ([^`]+)`")
	docLine = regexp.MustCompile(`^(?: {4}|\t)?(?:\$ |# )?(?:[A-Za-z0-9 '"\\:.,/@=-]+ \| |docker exec [^/]*|kubectl [^/]*-- )?(?:\./|/)?meta1 (.*)`)
)

// docCommands are the arguments of the commands of meta1 in a line of a page.
func docCommands(line string) (all [][]string) {
	found := docSpan.FindAllStringSubmatch(line, -1)
	if m := docLine.FindStringSubmatch(line); m != nil {
		if w := shellWords(m[1]); len(w) > 0 && isCommand(w[0]) { // else it is a sentence
			found = append(found, m)
		}
	}
	for _, m := range found {
		if w := shellWords(m[1]); len(w) > 0 {
			all = append(all, w)
		}
	}
	return all
}

func isCommand(word string) bool {
	_, err := os.Stat("../man/meta1-" + word + ".1")
	return err == nil
}

// shellWords splits a command line as a shell does, up to what ends it.
func shellWords(line string) (words []string) {
	var word strings.Builder
	var quote rune
	in := false
	end := func() {
		if in {
			words = append(words, word.String())
		}
		word.Reset()
		in = false
	}
	for _, c := range line {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '\'' || c == '"'):
			quote, in = c, true
		case quote != 0 || !strings.ContainsRune(" \t|;&<>#\\", c):
			word.WriteRune(c)
			in = true
		case c == ' ' || c == '\t':
			end()
		case c == '#' && in:
			word.WriteRune(c)
		default:
			end()
			return words
		}
	}
	end()
	return words
}

// parses has a command line read, and nothing done.
func parses(words []string) error {
	switch words[0] {
	case "sendmail", "…", "help", "--help":
		return nil // sendmail reads its flags as Sendmail does
	}
	var out, errs bytes.Buffer
	status := cli.Main(cli.Env{Args: append(append([]string{"meta1"}, words...), "--help"), Stdout: &out, Stderr: &errs, Version: "test", Exit: func(int) {}})
	if status != 0 {
		return fmt.Errorf("status %d: %s", status, strings.TrimSpace(errs.String()))
	}
	_, usage, _ := strings.Cut(out.String(), "Usage:\n  ")
	usage, _, _ = strings.Cut(usage, "\n")
	path := strings.Fields(strings.TrimPrefix(usage, "meta1 "))
	_, below, group := strings.Cut(out.String(), "Available Commands:\n")
	if group && len(words) > 1 && len(path) > 1 && strings.HasPrefix(path[1], "[") && !strings.HasPrefix(words[1], "-") && words[1] != "…" && !strings.Contains("\n"+below, "\n  "+words[1]+" ") {
		return fmt.Errorf("there is no such command below: %s", usage)
	}
	if len(path) > 0 && path[0] != words[0] {
		return fmt.Errorf("that is %s", usage)
	}
	return nil
}
