package disk

import (
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// A damaged record is removed with what comes after it, wherever it lies.
func TestADamagedRecordDoesNotStopRetention(t *testing.T) {
	for bad := range int64(10) {
		now := at(newYear)
		db, _ := opened(t, now, Config{})
		in := one(t, db, "in")
		for range 10 {
			write(t, in, 1)
			now.Add(int64(time.Second))
		}
		p := in.parts[0]
		if err := db.engine.Set(offsetKey(kindRecord, in.id, 0, bad), []byte("rubbish"), pebble.Sync); err != nil {
			t.Fatal(err)
		}
		was := int64(0)
		for age := range int64(12) {
			if err := in.removeBefore(newYear.Add(time.Duration(age)*time.Second), 0); err != nil {
				t.Fatal(err)
			}
			first := in.Stats().Partitions[0].First
			if first < was || first > min(age, 10) || first < min(age, 10)-1 || first < age && age != bad+1 && age <= 9 {
				t.Errorf("record %d is damaged, all from before second %d is removed: the first is %d", bad, age, first)
			}
			was = first
		}
		if was != 10 || p.base != p.size {
			t.Errorf("record %d is damaged: %d of 10 are removed, %d of %d bytes", bad, was, p.base, p.size)
		}
	}
}
