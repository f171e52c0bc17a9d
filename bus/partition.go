package bus

import "fmt"

// PartitionOf returns the partition of a key: murmur2 as Kafka's clients use it, so
// that moving a topic to Kafka keeps each host where it was. It panics if there is
// no partition.
func PartitionOf(key string, partitions int) int {
	if partitions <= 0 {
		panic(fmt.Sprintf("bus: %d partitions", partitions))
	}
	return int(murmur2(key)&0x7fffffff) % partitions
}

// murmur2 is MurmurHash2 (A. Appleby) with the seed of Kafka's DefaultPartitioner.
func murmur2(s string) uint32 {
	const (
		seed = 0x9747b28c
		m    = 0x5bd1e995
	)
	h := uint32(seed) ^ uint32(len(s))
	for len(s) >= 4 {
		k := uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24
		k *= m
		k ^= k >> 24
		k *= m
		h = h*m ^ k
		s = s[4:]
	}
	switch len(s) {
	case 3:
		h ^= uint32(s[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(s[1]) << 8
		fallthrough
	case 1:
		h ^= uint32(s[0])
		h *= m
	}
	h ^= h >> 13
	h *= m
	return h ^ h>>15
}
