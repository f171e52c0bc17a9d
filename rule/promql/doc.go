// Package promql judges metrics by the rules of Prometheus.
//
// [New] reads Prometheus rule files and gives a kemi.Rule to put between a topic of
// metrics and a topic of alerts:
//
//	rules, err := promql.New(promql.Config{Files: []string{"rules/*.yml"}})
//	...
//	kemi.Pipe("metric rules", metrics.All("rules"), rules, alerts)
//
// Expressions run on Prometheus' own engine, so they mean what they mean there. The
// data does not come from a database: the package holds in memory the series that
// some rule selects, for as long as some rule looks back, and drops all other
// metrics after one look-up. Rules look at many hosts at once, so they read the
// whole topic (All, not Group).
//
// # Time
//
// A group with an interval of 15 s is evaluated at every multiple of 15 s of event
// time: when the newest metric, less [Config].Delay, has passed it. When metrics stop
// coming, it is evaluated [Config].MaxDelay after its time by the clock of the ticks,
// so that absence is noticed. No clock is read: the same metrics and the same ticks
// give the same alerts, in whatever order the batches between two ticks come.
//
// When ticks stop as well, because the machine slept, nobody looked, and nothing is
// made of the silence: evaluations in the gap are done only as far as metrics tell of
// it afterwards, and [Status] counts the others. A clock of the ticks that jumps
// forward is such a gap. One that goes back by more than MaxDelay is believed: what was
// evaluated beyond is forgotten, and its alerts are as old as the correction.
//
// A metric from the future (a bad clock) does not move time: it counts as of the next
// tick, and is counted. A metric that is late is put where it belongs, and is seen by
// the evaluations to come. Rules that fell behind evaluate what they missed, up to
// [Config].MaxCatchUp evaluations, and skip and count the rest.
//
// # Rule files
//
// They are those of Prometheus: groups with name, interval, limit, query_offset and
// labels; rules with alert or record, expr, for, keep_firing_for, labels and
// annotations, the last two as Go templates with $labels, $value, $externalLabels,
// $externalURL and Prometheus' functions. What differs:
//
//   - An unknown key, an empty file and a second YAML document are errors, with file
//     and line. So are a label that depends on the value, an @ with a fixed time, a
//     look-back beyond Config.MaxLookback, and a query in a template whose metric is
//     not known when the file is read.
//   - A file has at most 4 MB and 10 000 rules, a rule 64 labels and 64 annotations, an
//     expression 200 brackets within each other and 1000 operators, a string in it 1 kB.
//   - A template ends: a range over a number and a template that calls itself are
//     errors, a text has 64 kB and 100 000 rounds at most, printf takes no * for a
//     width, and all templates of a rule share its Config.Timeout.
//   - Two alerts with the same name and the same labels in one group are refused:
//     they could not be told apart.
//   - limit keeps the alerts and series that are there, lets new ones in up to the
//     limit and reports the rest as an error of the rule. Prometheus clears them all.
//   - An alert has at most 1024 labels, with 64 kB of names and values; one that would
//     have more is left out and reported as an error of the rule.
//   - Intervals start at the epoch, not at a time of the group's own.
//   - A rule with sql instead of expr is one of rule/sql and passed over.
//
// What recording rules compute, and the series ALERTS and ALERTS_FOR_STATE, are
// written into the store and seen by later rules of the same evaluation.
//
// # Alerts
//
// An alert is told when it begins to fire and when it is resolved, once each. Pending
// ones are not told; [Rules.Active] shows them. An alert is identified by its labels,
// alertname among them. StartsAt is when it began to fire, as in Alertmanager.
//
// Rules of different groups or files may raise the same alert, because a file was
// copied or because there are several reasons for it. It is one alert all the same:
// told as firing when it begins for the first of them, and as resolved when it has
// ended for the last.
//
// # Restarts
//
// Behind a durable topic a restart shows nowhere. The series are built again from
// [Rules.Horizon] of the topic, and what no horizon bounds is kept beside the position
// (kemi.Keeper): of each alert since when it waits, fires and holds no more, and what was
// told of it; and how far evaluations have come. An alert that fires goes on to fire, with
// its StartsAt, is not told twice, and is resolved once: by what metrics say afterwards,
// not by the silence of the time when nothing ran. If its rule is gone by then, or has
// another name, group or label, it is told as resolved, as after a reload. An entry that
// cannot be read, as after a step back to an older kemi, stops nothing: it is dropped and
// counted ([Status].Unreadable), and what the replay made of its alert stands.
//
// [Rules.Proof] shows that a replay gives what the live run gave. It cannot where all
// that still comes are metrics older than what has been evaluated, from hosts whose
// clocks are slow: a replay takes them for a backlog. What is told then goes by what was
// kept all the same.
//
// Behind other sources nothing is kept. After a restart alerts that fire are told again,
// with the same Fingerprint and, if they began more than [Rules.Horizon] ago, another ID.
// One that ended while nothing ran is not told as resolved.
//
// # Reload
//
// [Rules.Watch] looks at the content of the files and reloads what has changed. A
// file that does not pass stays as it was, and the error says file, line and reason.
// A rule of the same group, name and labels keeps its alerts, also when it was moved
// to another file; the alerts of a rule that is gone are resolved. Series keep their samples as long as some rule selects
// them.
package promql
