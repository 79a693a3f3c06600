package lance

// Keys of a field's metadata: how Arrow says that a type is an extension, and how we say it where Lance would mistake
// it.
const (
	extensionName     = "ARROW:extension:name"
	extensionMetadata = "ARROW:extension:metadata"
	hiddenName        = "flightd:extension:name"
)

// jsonExtension is the extension that Lance's readers take for JSON in a binary form of their own, which they then do
// not find: the text that Arrow means by it could not be read at all.
const jsonExtension = "arrow.json"

// hideExtension returns the metadata of a field as files and manifests have it: JSON is plain text to other readers.
func hideExtension(md map[string]string) map[string]string {
	if md[extensionName] == jsonExtension {
		md[hiddenName] = jsonExtension
		delete(md, extensionName)
	}
	return md
}

// showExtension undoes hideExtension.
func showExtension(md map[string]string) map[string]string {
	if name, ok := md[hiddenName]; ok {
		md[extensionName] = name
		delete(md, hiddenName)
	}
	return md
}
