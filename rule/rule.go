// Package rule is the room of the rules: transforms that judge records and raise
// alerts. What a rule is, the root package says (kemi.Rule); how rules are written,
// the folders below: promql for metrics, sql for logs.
package rule
