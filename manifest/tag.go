package manifest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"
	"unicode"

	"github.com/flightd/flightd/object"
)

// newTagFile is a tag as Lance writes it.
type newTagFile struct {
	Branch       *string        `json:"branch"`
	Version      uint64         `json:"version"`
	CreatedAt    time.Time      `json:"createdAt"`
	UpdatedAt    time.Time      `json:"updatedAt"`
	ManifestSize int64          `json:"manifestSize"`
	Metadata     map[string]any `json:"metadata"`
}

// CheckTagName returns what Lance does not allow in the name of a tag, nil when it is one.
func CheckTagName(name string) error {
	switch {
	case name == "":
		return errors.New("it is empty")
	case strings.HasPrefix(name, "."), strings.HasSuffix(name, "."):
		return errors.New("it begins or ends with a dot")
	case strings.Contains(name, ".."):
		return errors.New("it has two dots in a row")
	case strings.HasSuffix(name, ".lock"):
		return errors.New("it ends with .lock")
	}
	for _, r := range name {
		if r == unicode.ReplacementChar || !unicode.IsLetter(r) && !unicode.IsNumber(r) && !strings.ContainsRune(".-_", r) {
			return fmt.Errorf("it has a %q; letters, digits, '.', '-' and '_' are allowed", r)
		}
	}
	return nil
}

// tagPath is the file of a tag.
func tagPath(root, name string) string { return path.Join(root, "_refs", "tags", name+".json") }

// PutTag gives a version of the table at root a name that no other has, else it returns object.ErrExists. REQUIRES: CheckTagName
// has passed the name.
func PutTag(ctx context.Context, st object.Store, root, name string, version uint64) error {
	info, err := st.Stat(ctx, VersionFileName(root, version))
	if err != nil {
		return err
	}
	now := time.Now().UTC()
	b, err := json.MarshalIndent(newTagFile{Version: version, CreatedAt: now, UpdatedAt: now, ManifestSize: info.Size, Metadata: map[string]any{}}, "", "  ")
	if err != nil {
		return err
	}
	if err := st.PutIfAbsent(ctx, tagPath(root, name), b); err != nil {
		return err
	}
	return st.SyncDirs(ctx, tagPath(root, name))
}

// DeleteTag takes a name away from its version, whose number it returns, or object.ErrNotExist.
func DeleteTag(ctx context.Context, st object.Store, root, name string) (uint64, error) {
	b, err := st.Get(ctx, tagPath(root, name))
	if err != nil {
		return 0, err
	}
	r, err := decodeTag(name, b)
	if err != nil {
		return 0, corrupt(tagPath(root, name), 0, "%w", err)
	}
	if err := st.Delete(ctx, tagPath(root, name)); err != nil {
		return 0, err
	}
	return r.Version, st.SyncDirs(ctx, tagPath(root, name))
}
