// Command wordcount counts the words of its standard input.
package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

// count returns how often each word stands in r.
func count(r io.Reader) (map[string]int, error) {
	words := map[string]int{}
	in := bufio.NewScanner(r)
	in.Split(bufio.ScanWords)
	for in.Scan() {
		words[strings.ToLower(in.Text())]++
	}
	return words, in.Err()
}

func main() {
	words, err := count(os.Stdin)
	if err != nil {
		fmt.Fprintln(os.Stderr, "wordcount:", err)
		os.Exit(1)
	}
	names := slices.SortedFunc(maps.Keys(words), func(a, b string) int {
		return cmp.Or(cmp.Compare(words[b], words[a]), cmp.Compare(a, b))
	})
	for _, w := range names {
		fmt.Println(words[w], w)
	}
}
