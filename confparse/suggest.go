package confparse

import (
	"strings"
)

// nearest gives the name that word was perhaps meant to be, or "".
func nearest(word string, names []string) string {
	if len(word) > 64 {
		return ""
	}
	best, bestDistance := "", 1+max(1, min(3, len(word)/3))
	for _, n := range names {
		if max(len(word)-len(n), len(n)-len(word)) >= bestDistance {
			continue
		}
		if d := distance(strings.ToLower(word), strings.ToLower(n)); d < bestDistance {
			best, bestDistance = n, d
		}
	}
	return best
}

// distance counts the letters to insert, drop, change or swap with the next one to
// make b of a.
func distance(a, b string) int {
	var twoAgo []int
	prev := make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(prev[j]+1, row[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], twoAgo[j-2]+1)
			}
		}
		twoAgo, prev = prev, row
	}
	return prev[len(b)]
}

// DidYouMean is the suggestion for a misspelt word, or "".
func DidYouMean(word string, names []string) string {
	if n := nearest(word, names); n != "" {
		return "did you mean " + n + "?"
	}
	return ""
}

// flagMeant is DidYouMean for a flag, with the negation that stands before it.
func flagMeant(word string, names []string) string {
	for _, n := range negations {
		if rest, ok := strings.CutPrefix(word, n); ok {
			if meant := nearest(rest, names); meant != "" {
				return "did you mean " + n + meant + "?"
			}
		}
	}
	return DidYouMean(word, names)
}
