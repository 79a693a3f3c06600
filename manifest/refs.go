package manifest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/flightd/flightd/object"
)

// Ref is a name that other programs gave to a version of a table. As long as it is there, its version stays.
type Ref struct {
	// Name is the tag's or the branch's.
	Name string
	// Branch is true for a branch.
	Branch bool
	// Version is the version of the table itself that the ref needs: the one a tag names, or the one at which a branch,
	// or the first of its ancestors, began. It is 0 for a tag of a branch's version.
	Version uint64
}

// tagFile is _refs/tags/{name}.json.
type tagFile struct {
	Branch  *string `json:"branch"`
	Version uint64  `json:"version"`
}

// branchFile is _refs/branches/{name}.json. The mapping lists, for the branch and each of its ancestors, the version
// that it began at and the id of what it began.
type branchFile struct {
	ParentBranch  *string `json:"parentBranch"`
	ParentVersion uint64  `json:"parentVersion"`
	Identifier    struct {
		Mapping [][]any `json:"version_mapping"`
	} `json:"identifier"`
}

// Refs returns the tags and branches of the table at root, sorted by kind and name. A ref that cannot be read is an
// error: what it needs is unknown.
func Refs(ctx context.Context, st object.Store, root string) ([]Ref, error) {
	refs, err := readRefs(ctx, st, path.Join(root, "_refs", "tags"), decodeTag)
	if err != nil {
		return nil, fmt.Errorf("read tags of table %s: %w", root, err)
	}
	branches, err := readRefs(ctx, st, path.Join(root, "_refs", "branches"), decodeBranch)
	if err != nil {
		return nil, fmt.Errorf("read branches of table %s: %w", root, err)
	}
	return append(refs, branches...), nil
}

func readRefs(ctx context.Context, st object.Store, dir string, decode func(name string, b []byte) (Ref, error)) ([]Ref, error) {
	files, err := st.List(ctx, dir)
	if err != nil {
		return nil, err
	}
	var refs []Ref
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name, ".json")
		if f.Dir || !ok {
			continue
		}
		b, err := st.Get(ctx, path.Join(dir, f.Name))
		if errors.Is(err, object.ErrNotExist) {
			continue // removed since the folder was read
		}
		if err != nil {
			return nil, err
		}
		r, err := decode(name, b)
		if err != nil {
			return nil, corrupt(path.Join(dir, f.Name), 0, "%w", err)
		}
		refs = append(refs, r)
	}
	return refs, nil
}

func decodeTag(name string, b []byte) (Ref, error) {
	r := Ref{Name: name}
	var t tagFile
	if err := json.Unmarshal(b, &t); err != nil {
		return r, err
	}
	if t.Version == 0 {
		return r, errors.New("the tag names no version")
	}
	if t.Branch == nil || *t.Branch == "" || *t.Branch == "main" {
		r.Version = t.Version
	}
	return r, nil
}

// decodeBranch finds where the branch leaves the table: its first ancestor is the first of the mapping.
func decodeBranch(name string, b []byte) (Ref, error) {
	r := Ref{Name: strings.ReplaceAll(name, "%2F", "/"), Branch: true}
	var f branchFile
	if err := json.Unmarshal(b, &f); err != nil {
		return r, err
	}
	r.Version = f.ParentVersion
	if f.ParentBranch != nil && *f.ParentBranch != "" && *f.ParentBranch != "main" {
		r.Version = 0
		if m := f.Identifier.Mapping; len(m) > 0 && len(m[0]) > 0 {
			if n, ok := m[0][0].(float64); ok && n >= 1 && n < 1<<53 {
				r.Version = uint64(n)
			}
		}
	}
	if r.Version == 0 {
		return r, errors.New("the branch does not say at which version of the table it began")
	}
	return r, nil
}
