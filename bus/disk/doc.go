// Package disk has topics on one disk, for programs of one binary: what Write has
// acknowledged survives kill -9 and a power cut, and what one topic is made of another
// is on it exactly once.
//
// All topics of a program share one [DB] and so one log and one fsync: a committer
// gathers what many goroutines write, together with how far the readers have come,
// into one synced batch of the storage engine (Pebble). A position is never ahead of
// the output it stands for. Where many small Writes come close together, each waits for
// others for up to 3 ms, unless that would slow their writers down.
//
//	db, err := disk.Open(disk.Config{Dir: "/var/lib/kemi"})
//	raw, err := disk.NewTopic(db, "raw", disk.TopicConfig[kemi.Metric]{})
//	alerts, err := disk.NewTopic(db, "alerts", disk.TopicConfig[kemi.Alert]{})
//	… // a pipeline of raw.Group("rules") and alerts
//	err = db.Close()
//
// # What is promised
//
// Write returns nil when the batch is on the disk. It is all there or not at all.
// Records that were made of records of a topic of the same DB are written once, however
// often the program is killed on the way: the DB keeps how far each reader's output has
// come in the same batch as the output. Outside of it, in a store or on Kafka, they are
// delivered at least once.
//
// Every record has a checksum. A record that cannot be read stops its partition for the
// reader that meets it, with an error that names topic, partition and offset; the others
// go on. [Check] looks at every record, [Repair] takes damage out and says what was
// lost.
//
// When the disk is nearly full, Write returns [ErrFull], reading goes on, and so does
// writing when there is room again.
//
// Retention wins over readers, as on Kafka: one that stays away for longer than a topic
// keeps its records loses some, which is counted and logged, and it is warned before.
package disk
