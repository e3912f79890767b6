// Verifies a published log with golang.org/x/mod/sumdb, which knows nothing of the broker.
//
//	verifier FOLDER VKEY < request.json
package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type folder string

func (folder) Height() int { return 8 }

// Go names tiles tile/H/L/…; C2SP tlog-tiles leaves the height out.
func (f folder) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var found [][]byte
	for _, tile := range tiles {
		name := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
		data, err := os.ReadFile(filepath.Join(string(f), name))
		if err != nil {
			return nil, err
		}
		found = append(found, data)
	}
	return found, nil
}

func (folder) SaveTiles([]tlog.Tile, [][]byte) {}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	var request struct {
		Index int64
		Leaf  string
		Old   int64
	}
	must(json.NewDecoder(os.Stdin).Decode(&request))
	verifier, err := note.NewVerifier(os.Args[2])
	must(err)
	data, err := os.ReadFile(filepath.Join(os.Args[1], "checkpoint"))
	must(err)
	opened, err := note.Open(data, note.VerifierList(verifier))
	must(err)
	lines := strings.Split(opened.Text, "\n")
	if lines[0] != verifier.Name() {
		log.Fatal("another origin")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	must(err)
	root, err := tlog.ParseHash(lines[2])
	must(err)
	tree := tlog.Tree{N: size, Hash: root}
	reader := tlog.TileHashReader(tree, folder(os.Args[1])) // verifies each tile against the root

	computed, err := tlog.TreeHash(size, reader)
	must(err)
	if computed != root {
		log.Fatal("another root")
	}
	// Every leaf's hash is read, so every tile is.
	for index := int64(0); index < size; index++ {
		_, err := reader.ReadHashes([]int64{tlog.StoredHashIndex(0, index)})
		must(err)
	}
	proof, err := tlog.ProveRecord(size, request.Index, reader)
	must(err)
	must(tlog.CheckRecord(proof, size, root, request.Index, tlog.RecordHash([]byte(request.Leaf))))
	oldRoot, err := tlog.TreeHash(request.Old, reader)
	must(err)
	consistency, err := tlog.ProveTree(size, request.Old, reader)
	must(err)
	must(tlog.CheckTree(consistency, size, root, request.Old, oldRoot))

	path := make([]string, 0, len(proof))
	for _, hash := range proof {
		path = append(path, base64.StdEncoding.EncodeToString(hash[:]))
	}
	must(json.NewEncoder(os.Stdout).Encode(map[string]any{
		"size": size, "path": path, "oldRoot": fmt.Sprint(oldRoot),
	}))
}
