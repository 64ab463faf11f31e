package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/policy"
)

// judgedName is how long the name of a file may be that does not exist, in bytes: as loader.NameMax.
const judgedName = 63

// Judged is a place that BPF LSM has to know: what may be done there and below, up to the next one.
type Judged struct {
	Path   string   // inside
	File   *os.File // the place itself; where Name is not empty, the directory
	Name   string   // whatever has this name in the directory, now or later
	Access policy.Access
	Ask    policy.Access    // of what Access does not have
	Until  time.Time        // when less than Access is allowed, Later; zero: never
	Later  policy.Access    // no more than at any time from then on
	By     [3]policy.RuleID // what decides on reading, writing, executing
	List   bool             // may be listed, whatever Access says
	Map    bool             // may be mapped to be executed, where the policy lists what may be
	Mount  bool             // the root of a mount
	Socket bool             // a unix socket of the host that may be connected to
	Anchor bool             // says nothing of what may be done: one is below it
	Named  bool             // another one is for its name
}

// Judged lists the places of the composed view, once Start has returned: every mount that there is inside, and every rule.
// The caller closes the files.
func (s *Sandbox) Judged() ([]Judged, error) {
	places, waits, err := s.judge(s.spec.Policy, &s.view.plan.said, s.programs.judged)
	if err == nil {
		places, err = s.addEnding(places, s.programs.list)
	}
	if err == nil && len(waits) > 0 {
		err = fmt.Errorf("sandbox: %s", waits[0])
	}
	if err != nil {
		closePlaces(places)
		return nil, err
	}
	return places, nil
}

// closePlaces closes the files of places.
func closePlaces(places []Judged) {
	for _, p := range places {
		p.File.Close()
	}
}

// judge lists the places of the view with what rules say of them, and the rules that nothing there could hold.
func (s *Sandbox) judge(c *policy.Compiled, rules *said, named map[string]ProgramRule) (places []Judged, waits []string, err error) {
	j := &judging{said: rules, plan: s.view.plan, hidden: s.procMasks(), places: map[string]*Judged{}, named: named, ends: s.ends(c, rules)}
	if c.HasGPUs() {
		j.gpus = c.Devices.ID
	}
	if j.root, err = unix.Open("/proc/"+strconv.Itoa(s.pid)+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return nil, nil, fmt.Errorf("sandbox: opening the root of the view: %w", err)
	}
	defer unix.Close(j.root)
	mounts, err := mountPoints(s.pid)
	if err == nil {
		err = j.addMounts(mounts)
	}
	if err == nil {
		err = j.addRules()
	}
	if err != nil {
		for _, p := range j.list {
			p.File.Close()
		}
		return nil, nil, fmt.Errorf("sandbox: finding what is to be judged: %w", err)
	}
	list := make([]Judged, len(j.list))
	for i, p := range j.list {
		list[i] = *p
	}
	return list, j.waits, nil
}

// anchoring are the file systems whose inodes are known by device, number and generation: a number is not used twice at a time,
// is the same when the inode comes back from the disk, and has another generation when it is another file's.
var anchoring = []int64{
	unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.TMPFS_MAGIC, unix.F2FS_SUPER_MAGIC, unix.RAMFS_MAGIC, unix.SQUASHFS_MAGIC,
	unix.EROFS_SUPER_MAGIC_V1, unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.DEVPTS_SUPER_MAGIC, zfsMagic,
}

const zfsMagic = 0x2fc12fc1 // include/sys/fs/zfs.h of OpenZFS

// unanchored says why the plan's rules can't be anchored to inodes; "" when they can. The view's own /etc is an overlay of one
// layer that only its root is known of.
func (p *viewPlan) unanchored() string {
	for i := range p.trees {
		t := &p.trees[i]
		if t.source == "" || t.kind == treeEtc || t.kind == treeSocket {
			continue
		}
		var fs unix.Statfs_t
		if err := unix.Statfs(t.source, &fs); err != nil {
			return t.source + ": " + err.Error()
		}
		if !slices.Contains(anchoring, fs.Type) {
			return fmt.Sprintf("%s is on a file system (type %#x) whose inode numbers are ambiguous, so that no rule can be anchored there", t.source, fs.Type)
		}
	}
	return ""
}

// judging is a list of Judged under construction.
type judging struct {
	*said
	plan   *viewPlan
	hidden []string // procMasks
	root   int
	list   []*Judged
	places map[string]*Judged     // of files, by path
	named  map[string]ProgramRule // by path, whatever is said of the directories above
	waits  []string               // rules that nothing in the view could hold
	ends   []end
	gpus   policy.RuleID // where they are given; 0: none
}

// open opens a place of the view. Its path has no symbolic link in it: one that is there was made inside since, and leads elsewhere.
func (j *judging) open(at string) (*os.File, error) { return j.openAs(at, 0) }

func (j *judging) openAs(at string, flags uint64) (*os.File, error) {
	fd, err := openStrict(j.root, at, unix.O_PATH|unix.O_NOFOLLOW|flags)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", at, err)
	}
	return os.NewFile(uintptr(fd), at), nil
}

// add opens a place, unless it is on the list.
func (j *judging) add(at string) (*Judged, error) {
	if p := j.places[at]; p != nil {
		return p, nil
	}
	f, err := j.open(at)
	if err != nil {
		return nil, err
	}
	p := &Judged{Path: at, File: f}
	j.say(p)
	j.places[at] = p
	j.list = append(j.list, p)
	return p, nil
}

// addMounts adds the root of every mount, so that nothing is judged by what lies beyond it.
func (j *judging) addMounts(mounts []string) error {
	for _, at := range mounts {
		if j.covered(at) {
			continue // by /dev/null, which has its own
		}
		p, err := j.add(at)
		if err != nil {
			return err
		}
		p.Mount = true
		tree := j.plan.tree(at)
		var fs unix.Statfs_t
		if err := unix.Fstatfs(int(p.File.Fd()), &fs); err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
		if at != "/etc" && !slices.Contains(anchoring, fs.Type) {
			return fmt.Errorf("%s: no rule can be anchored on a file system of type %#x, whose inode numbers are ambiguous: unmount it on the host, or name what is needed without it", at, fs.Type)
		}
		switch {
		case at == "/":
			p.List = true // as Landlock has it: the directories that lead to the trees
		case tree != nil && tree.kind == treeSocket:
			p.Socket, p.Access, p.Ask, p.Until = true, 0, 0, time.Time{}
		case at == "/proc" && j.gpus != 0:
			p.Access |= policy.Write // of processes: what sets the kernel, and what is another's, nobody writes
			p.By[1] = j.gpus
		case at == "/dev" || at == "/dev/pts":
			p.Access, p.Ask, p.Until = 0, 0, time.Time{}
			if j.baseline {
				p.Access = readWrite // which devices, another program judges
			}
		}
	}
	return nil
}

// covered reports whether a path is a file of /proc that the init covers with /dev/null, or a directory that it covers with an empty one.
func (j *judging) covered(at string) bool {
	rest, in := strings.CutPrefix(at, "/proc/")
	return in && slices.ContainsFunc(j.hidden, func(m string) bool { return m[1:] == rest })
}

// addRules adds what the rules are about: the file, its name, and the directories above it as far as they could be moved.
func (j *judging) addRules() error {
	for i := range j.entries {
		if err := j.addRule(&j.entries[i]); err != nil {
			return err
		}
	}
	for _, at := range slices.Sorted(maps.Keys(j.named)) {
		if err := j.addRule(&entry{path: at, text: j.named[at].text}); err != nil {
			return err
		}
	}
	return nil
}

func (j *judging) addRule(e *entry) error {
	at := e.path
	tree := j.plan.innermost(at)
	if at == "/" || tree == nil && !under(at, "/dev") {
		return nil // not in the view
	}
	if access, _ := j.effective(at); tree != nil && tree.kind == treeEtc && access == 0 {
		return nil // left out of /etc
	}
	p, err := j.add(at)
	if err != nil && !notThere(err) {
		return err
	}
	if p != nil && p.Mount {
		return nil
	}
	if err := j.addName(e, p); err != nil {
		return err
	}
	for dir := parent(at); dir != ""; dir = parent(dir) {
		if above := j.places[dir]; above != nil {
			break // and so is what is above it
		}
		if _, err := j.add(dir); notThere(err) {
			continue
		} else if err != nil {
			return err
		}
		j.places[dir].Anchor = true
	}
	return nil
}

// notThere reports whether nothing was opened because nothing has that path: what a symbolic link that was made inside leads to has another.
func notThere(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}

// addName adds a rule for what takes the place of p, which is nil when nothing is there yet.
func (j *judging) addName(e *entry, p *Judged) error {
	at := e.path
	name := path.Base(at)
	if len(name) > judgedName {
		return nil // it exists: checkJudged
	}
	dir, err := j.openAs(parent(at), unix.O_DIRECTORY)
	if notThere(err) { // with p it was moved away just now
		j.unheld(e)
		return nil
	}
	if err != nil {
		return err
	}
	n := &Judged{Path: at, File: dir, Name: name}
	j.say(n)
	j.list = append(j.list, n)
	if p != nil {
		p.Named = true
	}
	return nil
}

// unheld notes a rule of which not even the directory is there, unless nothing could come to be there with other rights than the rule's:
// planning sees to that where it can look, which is everywhere but in the private directories of a sandbox that runs.
func (j *judging) unheld(e *entry) {
	access, _ := j.effective(e.path)
	around, _ := j.effective(parent(e.path))
	if around&policy.Write != 0 && around&^access != 0 {
		j.waits = append(j.waits, e.text+": inside there is no directory "+parent(e.path)+" (a symbolic link is none), so there is nothing to anchor the rule to")
	}
}

// innermost returns the tree that a path is or lies in, nil when there is none.
func (p *viewPlan) innermost(at string) *tree {
	if t := p.tree(at); t != nil {
		return t
	}
	return p.around(at)
}

// mountPoints lists where something is mounted for a process, each place once.
func mountPoints(pid int) ([]string, error) {
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var list []string
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		// 36 35 98:0 /root /mount/point options ..., proc(5)
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			return nil, fmt.Errorf("%s: a line of %d fields", f.Name(), len(fields))
		}
		list = append(list, unescapeMount(fields[4]))
	}
	slices.Sort(list)
	return slices.Compact(list), lines.Err()
}
