package disk_test

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kemi-go/kemi/bus"
	"github.com/kemi-go/kemi/bus/bustest"
	"github.com/kemi-go/kemi/bus/codec"
	"github.com/kemi-go/kemi/bus/disk"
)

func TestTopicInMemory(t *testing.T) {
	bustest.Run(t, func(tb testing.TB) bustest.Bus { return busOn(tb, vfs.NewMem(), "data") })
}

func TestTopicOnDisk(t *testing.T) {
	bustest.Run(t, func(tb testing.TB) bustest.Bus { return busOn(tb, vfs.Default, tb.TempDir()) })
}

func busOn(tb testing.TB, fs vfs.FS, dir string) bustest.Bus {
	open := func() *disk.DB {
		db, err := disk.OpenOn(fs, disk.Config{Dir: dir, Ballast: 1 << 10}, nil)
		if err != nil {
			tb.Fatal(err)
		}
		return db
	}
	db := open()
	tb.Cleanup(func() {
		if err := db.Close(); err != nil {
			tb.Error(err)
		}
	})
	return bustest.Bus{
		Open: func(tb testing.TB, name string, want bustest.Topic) bus.Topic[bustest.Record] {
			topic, err := disk.NewTopic(db, name, disk.TopicConfig[bustest.Record]{
				Partitions: want.Partitions, Retain: want.Retain, Codecs: codec.Set[bustest.Record]{Write: bustest.Codec()},
			})
			if err != nil {
				tb.Fatal(err)
			}
			return topic
		},
		Restart: func(tb testing.TB) {
			if err := db.Close(); err != nil {
				tb.Fatal(err)
			}
			db = open()
		},
		Rewinds: true, Recovers: true,
	}
}
